"use strict";
// Every rollout: filters to the left, groups in the middle, one sample to the right.

const GROUPS_PER_PAGE = 25;
const KINDS = {
  "": ["all", () => true],
  right: ["right", (flags) => flags & FLAG.accurate && !(flags & FLAG.golden)],
  wrong: ["wrong", (flags) => !(flags & FLAG.accurate) && !(flags & FLAG.golden)],
  golden: ["golden answers", (flags) => flags & FLAG.golden],
  guided: ["guided", (flags) => flags & FLAG.guided],
  truncated: ["cut at the limit", (flags) => flags & FLAG.truncated],
  failed: ["not graded", (flags) => flags & FLAG.failed],
  versions: ["of several versions", (flags) => flags & FLAG.versions],
  values: ["with token values", (flags) => flags & FLAG.values],
};
const GROUP_KINDS = {
  "": ["all", () => true],
  allwrong: ["all wrong", (group) => group.sampled && !group.right],
  mixed: ["right and wrong", (group) => group.right && group.right < group.sampled],
  allright: ["all right", (group) => group.sampled && group.right === group.sampled],
  golden: ["with a golden answer", (group) => group.golden],
};
const ORDERS = {
  step: ["newest step first", (a, b) => b.step - a.step || a.number - b.number],
  oldest: ["oldest step first", (a, b) => a.number - b.number],
  reward: ["lowest reward first", (a, b) => a.reward / (a.sampled || 1) - b.reward / (b.sampled || 1) || b.step - a.step],
};

// The rows of a run that the filters leave, as groups with their `chosen` rows.
function filtered(run, state, found) {
  const { step, prompt, source, flags, reward } = run.columns;
  const wanted = { step: state.get("step", ""), source: state.get("source", ""), prompt: state.get("prompt", "").toLowerCase() };
  const isKind = (KINDS[state.get("kind", "")] || KINDS[""])[1], isGroup = (GROUP_KINDS[state.get("group", "")] || GROUP_KINDS[""])[1];
  const low = state.get("low", "") === "" ? -Infinity : Number(state.get("low")), high = state.get("high", "") === "" ? Infinity : Number(state.get("high"));
  const groups = [];
  for (const group of run.groups) {
    if (wanted.step !== "" && group.step !== Number(wanted.step)) continue;
    if (wanted.source !== "" && run.sources[group.source] !== wanted.source) continue;
    if (wanted.prompt && !run.prompts[group.prompt].toLowerCase().includes(wanted.prompt)) continue;
    if (!isGroup(group)) continue;
    const chosen = [];
    for (let row = group.first; row < group.first + group.rows; row++) {
      const value = reward[row];
      if (isKind(flags[row]) && (value === null ? low === -Infinity : value >= low && value <= high) && (!found || found.has(row))) chosen.push(row);
    }
    if (chosen.length) groups.push({ ...group, chosen });
  }
  return groups.sort((ORDERS[state.get("order", "step")] || ORDERS.step)[1]);
}

// The rows whose prompt, response or reference has the words; chunk by chunk, so that the page stays alive.
const searches = new Map();
async function search(store, run, words, tell) {
  const key = `${run.number}-${run.generation}-${run.chunks.length}-${words}`;
  if (searches.has(key)) return searches.get(key);
  const found = new Set(), wanted = words.toLowerCase();
  for (let chunk = 0; chunk < run.chunks.length; chunk++) {
    (await store.chunk(run, chunk)).forEach((record, i) => {
      const text = `${record.prompt}\n${record.response}\n${record.reference}\n${record.prompt_id}`;
      if (text.toLowerCase().includes(wanted)) found.add(run.chunks[chunk] + i);
    });
    if (!tell(chunk + 1, run.chunks.length)) return null;
    await new Promise((resolve) => setTimeout(resolve));
  }
  searches.clear();
  searches.set(key, found);
  return found;
}

function chip(run, row, at, kept) {
  const flags = run.columns.flags[row];
  const kind = flags & FLAG.golden ? "golden" : flags & FLAG.failed ? "failed" : flags & FLAG.accurate ? "right" : "wrong";
  const said = `sample ${run.columns.index[row]}: ${kind}, reward ${number(run.columns.reward[row])}, advantage ${number(run.columns.advantage[row])}, ${run.columns.tokens[row]} tokens`;
  return el("a", { href: sampleLink(run, row, kept), "data-row": row, title: said, "aria-label": said,
                   class: `chip ${kind}${flags & FLAG.truncated ? " cut" : ""}${flags & FLAG.guided ? " guided" : ""}${row === at ? " at" : ""}` },
    kind === "golden" ? "★" : flags & FLAG.accurate ? "✓" : "·");
}

function groupCard(run, group, record, at, kept) {
  return el("section", { class: `group${group.first <= at && at < group.first + group.rows ? " open" : ""}` },
    el("header", {}, el("b", {}, visible(run.prompts[group.prompt])), el("span", {}, `step ${group.step}`),
      el("span", { class: group.sampled && !group.right ? "bad" : "" }, group.sampled ? `${group.right} of ${group.sampled} right` : "not sampled"),
      el("span", { class: "number" }, `reward ${number(group.reward / (group.sampled || 1), 3)}`)),
    el("p", { class: "excerpt" }, visible(record.prompt.slice(-240))),
    el("div", { class: "chips" }, group.chosen.map((row) => chip(run, row, at, kept))));
}

function placeOf(run, at) {
  const [step, group, index] = at.split(".").map(Number);
  const { columns } = run;
  const found = run.groups.find((one) => one.step === step && one.group === group);
  if (!found) return -1;
  for (let row = found.first; row < found.first + found.rows; row++) if (columns.index[row] === index) return row;
  return -1;
}

function filters(store, run, state) {
  const options = (kinds) => Object.entries(kinds).map(([key, [words]]) => [key, words]);
  const steps = [...new Set(run.columns.step)];
  const set = (name) => (value) => state.set({ [name]: value, page: "", at: "" });
  return el("aside", { class: "filters" },
    choice("run", run.name, store.runs.map((one) => [one.name, one.name]), (value) => state.set({ run: value, at: "", page: "", step: "", source: "" })),
    entry("words in prompt, response, reference", state.get("words", ""), "search", set("words")),
    choice("step", state.get("step", ""), [["", "all"], ...steps.reverse().map((step) => [step, step])], set("step")),
    run.sources.length > 1 ? choice("source", state.get("source", ""), [["", "all"], ...run.sources.map((source) => [source, source])], set("source")) : null,
    entry("prompt id", state.get("prompt", ""), "search", set("prompt")),
    choice("groups", state.get("group", ""), options(GROUP_KINDS), set("group")),
    choice("samples", state.get("kind", ""), options(KINDS), set("kind")),
    el("div", { class: "pair" }, entry("reward from", state.get("low", ""), "number", set("low"), { step: "any" }), entry("to", state.get("high", ""), "number", set("high"), { step: "any" })),
    choice("order", state.get("order", "step"), options(ORDERS), set("order")),
    el("a", { class: "button", href: `#/rollouts?${new URLSearchParams({ run: run.name })}` }, "clear"),
    run.every > 1 ? el("p", { class: "note" }, `The samples of every ${run.every}th step are here, not of all: --samples`) : null);
}

function distributions(run, groups) {
  const kinds = [["right", "var(--right)", KINDS.right[1]], ["wrong", "var(--wrong)", KINDS.wrong[1]], ["golden", "var(--golden)", KINDS.golden[1]]];
  const of = (column) => kinds.map(([name, color, isKind]) => ({ name, color, values: groups.flatMap((group) => group.chosen.filter((row) => isKind(run.columns.flags[row])).map((row) => run.columns[column][row])) }));
  return el("div", { class: "charts" }, histogram("reward", of("reward")), histogram("tokens of a response", of("tokens")));
}

async function rolloutsView(store, state, isCurrent) {
  const run = store.run(state.get("run", ""));
  if (!run.groups.length) return el("p", { class: "empty" }, "This run has no rollout records (monitor.records).");
  const list = el("div", { class: "list" }, el("p", { class: "note" }, "..."));
  const detail = el("div", { class: "detail" });
  const view = el("div", { class: "rollouts" }, filters(store, run, state), list, detail);
  const words = state.get("words", "");
  const complete = async () => {
    const found = words ? await search(store, run, words, (done, all) => {
      list.replaceChildren(el("p", { class: "note" }, `searching: ${percent(done / all)}`));
      return isCurrent();
    }) : null;
    if (!isCurrent()) return;
    const groups = filtered(run, state, found);
    const at = state.get("at", "") ? placeOf(run, state.get("at")) : groups.length ? groups[0].chosen[0] : -1;
    const holds = groups.findIndex((group) => group.first <= at && at < group.first + group.rows);
    const pages = Math.max(1, Math.ceil(groups.length / GROUPS_PER_PAGE));
    const page = Math.min(pages - 1, state.get("page", "") === "" ? Math.max(0, Math.floor(holds / GROUPS_PER_PAGE)) : Number(state.get("page")));
    const shown = groups.slice(page * GROUPS_PER_PAGE, (page + 1) * GROUPS_PER_PAGE);
    const records = await Promise.all(shown.map((group) => store.record(run, group.first)));
    const record = at >= 0 ? await store.record(run, at) : null;
    if (!isCurrent()) return;
    const samples = groups.reduce((sum, group) => sum + group.chosen.length, 0);
    const turn = (to, words) => el("button", { disabled: to < 0 || to >= pages, onclick: () => state.set({ page: String(to) }) }, words);
    list.replaceChildren(
      el("div", { class: "row" }, el("p", { class: "total" }, el("b", {}, number(samples)), " samples in ", el("b", {}, number(groups.length)), " groups"),
        el("div", { class: "pages" }, turn(page - 1, "‹"), el("span", {}, `${page + 1} / ${number(pages)}`), turn(page + 1, "›"))),
      distributions(run, groups),
      ...shown.map((group, i) => groupCard(run, group, records[i], at, state.values)));
    detail.replaceChildren(record ? sampleView(run, at, record, state) : el("p", { class: "empty" }, "No sample is left by these filters."));
    list.querySelector(".open")?.scrollIntoView({ block: "nearest" });
    rolloutsView.order = groups.flatMap((group) => group.chosen);
    rolloutsView.at = at;
    rolloutsView.run = run;
  };
  complete().catch((error) => list.replaceChildren(el("p", { class: "empty" }, String(error))));
  return view;
}

// j and k go through the samples that the filters leave.
document.addEventListener("keydown", (event) => {
  const step = { j: 1, k: -1 }[event.key];
  if (!step || !rolloutsView.order || !location.hash.startsWith("#/rollouts") || /INPUT|SELECT/.test(event.target.tagName)) return;
  const row = rolloutsView.order[rolloutsView.order.indexOf(rolloutsView.at) + step];
  if (row === undefined) return;
  const kept = state.values;
  kept.delete("page"); // that of the sample is shown
  location.hash = sampleLink(rolloutsView.run, row, kept);
});
