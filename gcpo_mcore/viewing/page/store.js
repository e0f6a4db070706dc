"use strict";
// Where the data is: in this file, or at the server that follows the runs. Chunks are unpacked when they are looked at.

const FLAG = { accurate: 1, golden: 2, truncated: 4, failed: 8, values: 16, versions: 32, guided: 64 };
const CHUNKS_KEPT = 40;

async function unpacked(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

async function packed(name) {
  const block = document.getElementById(name);
  if (block) return Uint8Array.from(atob(block.textContent), (letter) => letter.charCodeAt(0));
  const answer = await fetch("/" + name.replaceAll("-", "/"), { cache: "no-store" });
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return new Uint8Array(await answer.arrayBuffer());
}

class Store {
  constructor() {
    this.runs = [];
    this.live = false;
    this.kept = new Map();
  }

  async read() {
    const index = await unpacked(await packed("index"));
    this.live = index.live;
    this.runs = index.runs.map((run, number) => ({ ...run, number, color: `var(--run-${number % 8})`, groups: groupsOf(run.columns) }));
  }

  run(name) {
    return this.runs.find((run) => run.name === name) || this.runs[0];
  }

  async chunk(run, number) {
    const key = `${run.number}-${number}-${run.generation}`;
    const found = this.kept.get(key) || packed(`chunk-${run.number}-${number}`).then(unpacked);
    this.kept.delete(key);
    this.kept.set(key, found); // the newest last
    if (this.kept.size > CHUNKS_KEPT) this.kept.delete(this.kept.keys().next().value);
    return found;
  }

  async record(run, row) {
    const number = run.chunks.findLastIndex((first) => first <= row);
    return (await this.chunk(run, number))[row - run.chunks[number]];
  }
}

// Groups of a run in order: the first row, how many, and what the page asks of them.
function groupsOf(columns) {
  const groups = [];
  let last = null;
  for (let row = 0; row < columns.step.length; row++) {
    const isGolden = columns.flags[row] & FLAG.golden;
    if (!last || columns.step[row] !== last.step || columns.group[row] !== last.group) {
      last = { number: groups.length, step: columns.step[row], group: columns.group[row], prompt: columns.prompt[row],
               source: columns.source[row], first: row, rows: 0, sampled: 0, right: 0, golden: 0, reward: 0 };
      groups.push(last);
    }
    last.rows++;
    last.golden += isGolden ? 1 : 0;
    if (!isGolden) {
      last.sampled++;
      last.right += columns.flags[row] & FLAG.accurate ? 1 : 0;
      last.reward += columns.reward[row] || 0;
    }
  }
  return groups;
}
