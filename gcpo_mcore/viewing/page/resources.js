"use strict";
// Where the time of a step goes, and what memory its phases take.

const PHASES = { sync: "#8d99ae", sample: "#3d7de4", grade: "#f2a541", deal: "#b9a7d9", score: "#8a5cf0", update: "#1fa97c",
                 evaluate: "#e05a8a", checkpoint: "#6b7a90", restore: "#a8b545", check: "#c98f5e", other: "#c9ced6" };
const MOST_BARS = 120;

// Bars of a run: a step each, or the mean of some steps where there are many. Seconds by phase.
function timeBars(run) {
  const names = Object.keys(run.metrics).filter((name) => name.startsWith("time_s/") && name !== "time_s/step");
  const rows = run.metrics.step.map((step, i) => ({ step, i })).filter(({ i }) => (run.metrics["time_s/step"] || [])[i]);
  const size = Math.ceil(rows.length / MOST_BARS) || 1;
  const bars = [];
  for (let i = 0; i < rows.length; i += size) {
    const some = rows.slice(i, i + size);
    const mean = (name) => some.reduce((sum, row) => sum + (run.metrics[name][row.i] || 0), 0) / some.length;
    const parts = Object.fromEntries(names.map((name) => [name.slice(7), mean(name)]));
    const whole = mean("time_s/step");
    parts.other = Math.max(0, whole - Object.values(parts).reduce((a, b) => a + b, 0));
    const from = some[0].step, to = some[some.length - 1].step;
    bars.push({ short: String(from), label: from === to ? `step ${from}:` : `steps ${from} to ${to}, mean:`, parts, whole });
  }
  return bars;
}

function timeTable(bars, colors) {
  const mean = (name) => bars.reduce((sum, bar) => sum + (bar.parts[name] || 0), 0) / Math.max(1, bars.length);
  const rows = Object.keys(colors).map((name) => [name, mean(name)]).filter(([, seconds]) => seconds > 0).sort((a, b) => b[1] - a[1]);
  const whole = rows.reduce((sum, [, seconds]) => sum + seconds, 0) || 1;
  return el("table", { class: "shares" }, rows.map(([name, seconds]) => {
    const bar = el("i", { class: "share" });
    bar.style.width = `${(100 * seconds) / whole}%`;
    bar.style.background = colors[name];
    return el("tr", {}, el("td", {}, dot(colors[name]), name), el("td", { class: "number" }, number(seconds, 3) + " s"),
      el("td", { class: "number" }, percent(seconds / whole)), el("td", { class: "track" }, bar));
  }));
}

function resourcesView(store, state) {
  const runs = state.shown(store);
  const barsOf = new Map(runs.map((run) => [run, timeBars(run)]));
  const top = Math.max(1e-3, ...[...barsOf.values()].flatMap((bars) => bars.map((bar) => Math.max(bar.whole, Object.values(bar.parts).reduce((a, b) => a + b, 0)))));
  const found = new Set([...barsOf.values()].flatMap((bars) => bars.flatMap((bar) => Object.keys(bar.parts))));
  const colors = { ...PHASES, ...Object.fromEntries([...found].filter((name) => !(name in PHASES)).map((name, i) => [name, `var(--run-${(i + 3) % 8})`])) };
  const memory = [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))].filter((name) => name.startsWith("memory/") || name === "perf/memory_peak_gib").sort();
  return el("div", {},
    el("h2", {}, "Seconds of a step, by phase", el("small", {}, "the same scale for every run")),
    runs.map((run) => el("div", { class: "time" }, stackedBars(run.name, barsOf.get(run), colors, top), timeTable(barsOf.get(run), colors))),
    el("h2", {}, "Memory", el("small", {}, "peak of each phase in GiB, the largest over ranks")),
    el("div", { class: "charts" }, memory.map((name) => lineChart(name, seriesOf(runs, name, "step", 0), "step"))));
}
