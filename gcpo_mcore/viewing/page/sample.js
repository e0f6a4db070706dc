"use strict";
// One sample: what it says, what it got, and its tokens in colours.

const LOOKS = {
  logp: { words: "log-prob", unit: "nats, in the update", of: (v, i) => v.logp[i] },
  entropy: { words: "entropy", unit: "nats", of: (v, i) => v.entropy[i] },
  ratio: { words: "ratio: now / before the step", unit: "log", of: (v, i) => (v.old_logp ? minus(v.logp[i], v.old_logp[i]) : 0) },
  mismatch: { words: "ratio: actor / engine", unit: "log", of: (v, i) => (v.rollout_logp ? minus((v.old_logp || v.logp)[i], v.rollout_logp[i]) : null) },
  version: { words: "version of the weights", unit: "", of: (v, i, record) => (record.token_versions || [])[i] ?? record.weight_version },
};

function minus(a, b) {
  return a === null || b === null ? null : a - b;
}

// A value's class and how strong it is, from 0 to 1: below zero one colour, above another.
function tint(look, value, scale) {
  if (value === null || value === undefined) return null;
  if (look === "version") return ["version", scale.high === scale.low ? 0 : (value - scale.low) / (scale.high - scale.low)];
  const share = Math.min(1, Math.abs(value) / scale.size);
  if (look === "entropy") return ["entropy", share];
  return [value < 0 ? "below" : "above", share];
}

function tokensOf(record, look) {
  const values = record.token_values;
  const found = values.pieces.map((_, i) => LOOKS[look].of(values, i, record));
  const [low, high] = extent(found);
  const scale = { low, high, size: look === "logp" ? Math.max(1, Math.min(10, -low)) : Math.max(look === "entropy" ? 0.5 : 0.02, Math.abs(low), Math.abs(high)) };
  const nodes = values.pieces.map((piece, i) => {
    const said = [["token", values.ids[i]], ["log-prob", values.logp[i]], ["before the step", values.old_logp && values.old_logp[i]],
      ["engine", values.rollout_logp && values.rollout_logp[i]], ["entropy", values.entropy[i]], ["advantage", values.advantage[i]],
      ["version", (record.token_versions || [])[i]]].filter(([, value]) => value !== undefined && value !== null);
    const token = el("span", { class: "token", title: said.map(([name, value]) => `${name}: ${value}`).join("\n") }, visible(piece));
    const color = tint(look, found[i], scale);
    if (color) {
      token.style.setProperty("--share", color[1].toFixed(3));
      token.classList.add(color[0]);
    }
    return token;
  });
  const ends = look === "version" ? [`version ${low}`, `version ${high}`] : look === "logp" ? ["0", `−${number(scale.size, 2)}`] :
    look === "entropy" ? ["0", number(scale.size, 2)] : [`−${number(scale.size, 2)}`, `+${number(scale.size, 2)}`];
  return [el("div", { class: "legend" }, el("span", {}, ends[0]), el("i", { class: `scale ${look}` }), el("span", {}, ends[1]), el("span", { class: "unit" }, LOOKS[look].unit)),
    el("div", { class: "text tokens" }, nodes)];
}

// Stretches of a response that came from the same weights.
function versions(record) {
  const all = record.token_versions;
  if (!all) return null;
  const stretches = [];
  all.forEach((version, i) => {
    const last = stretches[stretches.length - 1];
    if (last && last.version === version) last.tokens++;
    else stretches.push({ version, from: i, tokens: 1 });
  });
  return el("div", { class: "versions" }, stretches.map((one, i) => {
    const part = el("span", { title: `tokens ${one.from} to ${one.from + one.tokens - 1}` }, `version ${one.version}`, el("small", {}, ` ${one.tokens} tokens`));
    part.style.flexGrow = one.tokens;
    part.style.setProperty("--share", stretches.length > 1 ? (i / (stretches.length - 1)).toFixed(2) : "0");
    return part;
  }));
}

function verdict(record) {
  if (record.is_golden) return ["golden", "golden answer"];
  if (record.grading_failed) return ["failed", `not graded: ${record.grading_failed}`];
  return record.is_accurate ? ["right", "right"] : ["wrong", "wrong"];
}

// The address of a sample; `kept` is what else is in the address, of filters for one.
function sampleLink(run, row, kept = new URLSearchParams()) {
  const { step, group, index } = run.columns;
  const values = new URLSearchParams(kept);
  values.set("run", run.name);
  values.set("at", `${step[row]}.${group[row]}.${index[row]}`);
  return `#/rollouts?${values}`;
}

function sampleView(run, row, record, state) {
  const look = LOOKS[state.get("colour", "")] ? state.get("colour", "") : "";
  const [kind, words] = verdict(record);
  const fact = (name, value) => el("div", { class: "fact" }, el("dt", {}, name), el("dd", {}, value));
  const text = record.token_values && look ? tokensOf(record, look) :
    [look ? el("p", { class: "note" }, "The values of this sample's tokens were not kept: monitor.token_values_per_step says of how many a step they are.") : null,
     el("div", { class: "text" }, visible(record.response))];
  return el("article", { class: "sample", "data-row": row },
    el("header", {},
      el("span", { class: `badge ${kind}` }, words),
      record.truncated ? el("span", { class: "badge cut" }, "cut at the limit") : null,
      record.guided_tokens ? el("span", { class: "badge golden" }, `${record.guided_tokens} tokens given`) : null,
      el("a", { href: sampleLink(run, row), class: "link", title: "a link to this sample" }, visible(`step ${record.step} · ${record.prompt_id} · ${record.index}`))),
    el("dl", { class: "facts" },
      fact("reward", number(record.reward)), Object.entries(record.reward_parts || {}).map(([name, value]) => fact(visible(name), number(value))),
      fact("advantage", number(record.advantage)), fact("tokens", number(record.tokens)), fact("weights", `version ${record.weight_version}`),
      fact("mean log-prob", number(record.mean_rollout_logp))),
    versions(record),
    el("h3", {}, "Prompt"), el("div", { class: "text prompt" }, visible(record.prompt)),
    el("div", { class: "row" }, el("h3", {}, "Response"),
      choice("colour tokens by", look, [["", "nothing"], ...Object.entries(LOOKS).map(([name, one]) => [name, one.words])], (value) => state.set({ colour: value }))),
    ...text.flat(),
    el("h3", {}, "Reference answer"), el("div", { class: "text reference" }, visible(String(record.reference ?? ""))));
}
