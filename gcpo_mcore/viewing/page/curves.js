"use strict";
// All metrics of the chosen runs, on the same axes.

// What is asked of a run first; the rest is below, by the word before the slash.
const FIRST = [/^reward\/mean$/, /^val\//, /^groups\/all_wrong_fraction$/, /^groups\/golden_injected$/, /^actor\/entropy$/,
  /^actor\/grad_norm$/, /^rollout\/response_tokens_mean$/, /^mismatch\/logp_abs_diff_mean$/, /^perf\/tokens_per_s$/];

function seriesOf(runs, name, axis, smoothing) {
  return runs.filter((run) => run.metrics[name]).map((run) => {
    const begin = run.metrics.time_unix_s ? run.metrics.time_unix_s[0] : 0;
    const x = axis === "hours" ? run.metrics.time_unix_s.map((time) => (time - begin) / 3600) : run.metrics.step;
    const raw = run.metrics[name];
    return { name: run.name, color: run.color, x, y: smoothed(raw, smoothing), raw: smoothing ? raw : null };
  });
}

function last(run, pattern) {
  const found = Object.keys(run.metrics).filter((name) => pattern.test(name))
    .map((name) => run.metrics[name].findLast((value) => value !== null && value !== undefined)).filter((value) => value !== undefined);
  return found.length ? found.reduce((a, b) => a + b) / found.length : null;
}

function runCard(run) {
  const steps = run.metrics.step || [];
  const golden = (run.metrics["groups/golden_injected"] || []).reduce((a, b) => a + (b || 0), 0);
  const figure = (words, value) => el("div", { class: "figure" }, el("b", {}, value), el("span", {}, words));
  return el("section", { class: "card run" },
    el("h2", {}, dot(run.color), run.name),
    el("p", { class: "about" }, Object.entries(run.about).filter(([name]) => name !== "steps").map(([name, value]) => el("span", {}, el("small", {}, name), " ", value))),
    el("div", { class: "figures" },
      figure("step", `${number(steps[steps.length - 1] || 0)}${run.about.steps ? " / " + number(Number(run.about.steps)) : ""}`),
      figure("reward", number(last(run, /^reward\/mean$/), 3)),
      figure("held out", percent(last(run, /^val\//))),
      figure("all wrong", percent(last(run, /^groups\/all_wrong_fraction$/))),
      figure("golden answers", number(golden)),
      figure("tokens/s", number(last(run, /^perf\/tokens_per_s$/), 3))));
}

function curvesView(store, state) {
  const runs = state.shown(store);
  const axis = state.get("axis", "step"), smoothing = Number(state.get("smooth", 0)), wanted = state.get("metric", "").toLowerCase();
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))].sort()
    .filter((name) => name !== "step" && name !== "time_unix_s" && name.toLowerCase().includes(wanted));
  const chart = (name) => lineChart(name, seriesOf(runs, name, axis, smoothing), axis);
  const first = names.filter((name) => FIRST.some((one) => one.test(name)))
    .sort((a, b) => FIRST.findIndex((one) => one.test(a)) - FIRST.findIndex((one) => one.test(b)));
  const sections = Map.groupBy(names.filter((name) => !first.includes(name)), (name) => name.split("/")[0]);
  return el("div", {},
    el("div", { class: "runs" }, runs.map(runCard)),
    el("div", { class: "bar" },
      entry("metrics", state.get("metric", ""), "search", (value) => state.set({ metric: value }), { placeholder: "part of a name" }),
      choice("along", axis, [["step", "steps"], ["hours", "hours"]], (value) => state.set({ axis: value })),
      entry("smoothing", smoothing, "range", (value) => state.set({ smooth: value }), { min: 0, max: 0.95, step: 0.05 })),
    el("div", { class: "charts" }, first.map(chart)),
    [...sections].map(([word, members]) => el("details", { open: Boolean(wanted) },
      el("summary", {}, word, el("span", { class: "count" }, String(members.length))),
      el("div", { class: "charts" }, members.map(chart)))));
}
