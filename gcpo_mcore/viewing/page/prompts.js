"use strict";
// Prompts over time: which are all wrong, which come to be solved.

const PROMPTS_PER_PAGE = 60;
const PROMPT_KINDS = {
  "": ["all", () => true],
  never: ["never solved", (prompt) => !prompt.everRight],
  learnt: ["all wrong once, solved later", (prompt) => prompt.seen[0].right === 0 && prompt.seen[prompt.seen.length - 1].right > 0],
  lost: ["solved once, all wrong later", (prompt) => prompt.seen[0].right > 0 && prompt.seen[prompt.seen.length - 1].right === 0],
  again: ["seen more than once", (prompt) => prompt.seen.length > 1],
};

function promptsOf(run) {
  const prompts = new Map();
  for (const group of run.groups) {
    if (!group.sampled) continue;
    if (!prompts.has(group.prompt)) prompts.set(group.prompt, { id: run.prompts[group.prompt], source: run.sources[group.source], seen: [], everRight: false, golden: 0 });
    const prompt = prompts.get(group.prompt);
    prompt.seen.push(group);
    prompt.everRight ||= group.right > 0;
    prompt.golden += group.golden;
  }
  return [...prompts.values()];
}

// The share of a step's groups without a right answer: all of them, and those of each source.
function allWrong(run) {
  const names = ["all sources", ...(run.sources.length > 1 ? run.sources : [])];
  const steps = [...new Set(run.columns.step)];
  return names.map((name, i) => {
    const counts = new Map(steps.map((step) => [step, [0, 0]]));
    for (const group of run.groups) {
      if (!group.sampled || (i && run.sources[group.source] !== name)) continue;
      const count = counts.get(group.step);
      count[0] += group.right === 0;
      count[1]++;
    }
    return { name, color: `var(--run-${i % 8})`, x: steps, y: steps.map((step) => (counts.get(step)[1] ? counts.get(step)[0] / counts.get(step)[1] : null)), raw: null };
  });
}

function promptsView(store, state) {
  const run = store.run(state.get("run", ""));
  if (!run.groups.length) return el("p", { class: "empty" }, "This run has no rollout records (monitor.records).");
  const all = promptsOf(run), kind = PROMPT_KINDS[state.get("prompts", "")] || PROMPT_KINDS[""];
  const found = all.filter(kind[1]).sort((a, b) => b.seen.length - a.seen.length || a.id.localeCompare(b.id, "en", { numeric: true }));
  const pages = Math.max(1, Math.ceil(found.length / PROMPTS_PER_PAGE)), page = Math.min(pages - 1, Number(state.get("page", 0)));
  const turn = (to, words) => el("button", { disabled: to < 0 || to >= pages, onclick: () => state.set({ page: String(to) }) }, words);
  const series = allWrong(run);
  const strip = (prompt) => el("div", { class: "strip" }, prompt.seen.map((group) => {
    const cell = el("a", { href: sampleLink(run, group.first), class: group.golden ? "with golden" : "",
                           title: `step ${group.step}: ${group.right} of ${group.sampled} right${group.golden ? ", a golden answer took part" : ""}` });
    cell.style.setProperty("--share", (group.right / group.sampled).toFixed(3));
    return cell;
  }));
  return el("div", {},
    el("div", { class: "bar" },
      choice("run", run.name, store.runs.map((one) => [one.name, one.name]), (value) => state.set({ run: value, page: "" })),
      choice("prompts", state.get("prompts", ""), Object.entries(PROMPT_KINDS).map(([key, [words]]) => [key, words]), (value) => state.set({ prompts: value, page: "" })),
      el("p", { class: "total" }, el("b", {}, number(found.length)), ` of ${number(all.length)} prompts`),
      el("div", { class: "pages" }, turn(page - 1, "‹"), el("span", {}, `${page + 1} / ${number(pages)}`), turn(page + 1, "›"))),
    lineChart("share of recorded groups that are all wrong", series, "step", 200),
    el("p", { class: "note" }, series.map((one) => el("em", { class: "value" }, dot(one.color), one.name))),
    el("table", { class: "prompts" },
      el("thead", {}, el("tr", {}, [["prompt"], ["source"], ["times seen", "number"], ["golden answers", "number"], ["last", "number"], ["share of right answers, each time"]].map(([words, kind]) => el("th", { class: kind }, words)))),
      el("tbody", {}, found.slice(page * PROMPTS_PER_PAGE, (page + 1) * PROMPTS_PER_PAGE).map((prompt) => {
        const last = prompt.seen[prompt.seen.length - 1];
        return el("tr", {}, el("td", {}, el("a", { href: `#/rollouts?${new URLSearchParams({ run: run.name, prompt: prompt.id })}` }, visible(prompt.id))),
          el("td", {}, visible(prompt.source)), el("td", { class: "number" }, String(prompt.seen.length)), el("td", { class: "number" }, String(prompt.golden)),
          el("td", { class: "number" }, percent(last.right / last.sampled)), el("td", {}, strip(prompt)));
      }))));
}
