"use strict";
// Which view is shown: all of it is in the address, so that every view and every sample has a link.

const VIEWS = { curves: ["Curves", curvesView], resources: ["Time and memory", resourcesView], rollouts: ["Rollouts", rolloutsView], prompts: ["Prompts", promptsView] };
const POLL_MS = 3000;

const state = {
  get view() {
    const name = location.hash.slice(2).split("?")[0];
    return name in VIEWS ? name : "curves";
  },
  get values() {
    return new URLSearchParams(location.hash.split("?")[1] || "");
  },
  get(name, otherwise) {
    return this.values.has(name) ? this.values.get(name) : otherwise;
  },
  set(changes) {
    const values = this.values;
    for (const [name, value] of Object.entries(changes)) value === "" ? values.delete(name) : values.set(name, value);
    location.hash = `#/${this.view}?${values}`;
  },
  shown(store) {
    const hidden = new Set((this.get("hide", "") || "").split(",").filter(Boolean));
    return store.runs.filter((run) => !hidden.has(String(run.number)));
  },
  toggle(run) {
    const hidden = new Set((this.get("hide", "") || "").split(",").filter(Boolean));
    hidden.delete(String(run.number)) || hidden.add(String(run.number));
    this.set({ hide: [...hidden].join(",") });
  },
};
const store = new Store();
let shown = 0;

function themed(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  try { theme ? localStorage.setItem("theme", theme) : (theme = localStorage.getItem("theme")); } catch { /* a file may have no storage */ }
  if (theme) document.documentElement.dataset.theme = theme;
}

function isDark() {
  return document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function heading() {
  const kept = state.get("hide", "") ? `?${new URLSearchParams({ hide: state.get("hide", "") })}` : "";
  const visibleRuns = state.shown(store);
  return [
    el("h1", {}, "gcpo_mcore"),
    el("nav", {}, Object.entries(VIEWS).map(([name, [words]]) => el("a", { href: `#/${name}${kept}`, class: name === state.view ? "here" : "" }, words))),
    el("div", { class: "names" }, store.runs.length > 1 || state.view === "curves" ? store.runs.map((run) =>
      el("button", { class: `name${visibleRuns.includes(run) ? "" : " off"}`, title: "show or hide this run", onclick: () => state.toggle(run) }, dot(run.color), run.name)) : null),
    store.live ? el("button", { class: "live", id: "live", title: "show what is new", onclick: show }, "live") : null,
    el("button", { class: "theme", title: "light or dark", "aria-label": "light or dark", onclick: () => themed(isDark() ? "light" : "dark") }, "◐"),
  ].filter(Boolean);
}

async function show() {
  const mine = ++shown;
  document.getElementById("top").replaceChildren(...heading());
  const content = await VIEWS[state.view][1](store, state, () => mine === shown);
  if (mine !== shown) return;
  const focus = document.activeElement && document.activeElement.getAttribute("aria-label");
  const lists = [...document.querySelectorAll(".list, .detail")].map((one) => one.scrollTop);
  const opened = [...document.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent);
  document.getElementById("view").replaceChildren(content);
  document.querySelectorAll("details > summary").forEach((summary) => { summary.parentElement.open ||= opened.includes(summary.textContent); });
  if (focus) [...document.querySelectorAll("[aria-label]")].find((one) => one.getAttribute("aria-label") === focus)?.focus();
  document.querySelectorAll(".list, .detail").forEach((one, i) => { one.scrollTop = lists[i] || 0; });
}

function signature() {
  return JSON.stringify(store.runs.map((run) => [run.generation, run.chunks.length, run.metrics.step]));
}

// Whoever reads rollouts is not disturbed: the button says that there is more.
async function follow() {
  const before = signature();
  try {
    await store.read();
    document.getElementById("live")?.classList.remove("lost");
    if (signature() !== before) state.view === "rollouts" ? document.getElementById("live")?.classList.add("news") : await show();
  } catch {
    document.getElementById("live")?.classList.add("lost");
  }
  setTimeout(follow, POLL_MS);
}

themed(null);
window.addEventListener("hashchange", show);
store.read().then(show).then(() => store.live && setTimeout(follow, POLL_MS)).catch((error) =>
  document.getElementById("view").replaceChildren(el("p", { class: "empty" }, `This page cannot be shown: ${error}`)));
