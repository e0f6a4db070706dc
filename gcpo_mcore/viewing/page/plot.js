"use strict";
// Charts as svg: lines, stacked bars, a histogram. Sizes in pixels of the box they are drawn in.

const EDGE = { left: 52, right: 14, top: 10, bottom: 24 };
const MAX_POINTS = 800;

// Round numbers from low to high, about so many.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((unit) => unit * power).find((unit) => unit >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) found.push(Number(tick.toPrecision(12)));
  return found;
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || value === undefined) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low > high ? [0, 1] : [low, high];
}

// Every point of a short series; of a long one the lowest and highest of each piece, so that no spike is lost.
function thinned(x, y) {
  const points = [];
  for (let i = 0; i < x.length; i++) if (y[i] !== null && y[i] !== undefined) points.push([x[i], y[i]]);
  if (points.length <= MAX_POINTS) return points;
  const size = Math.ceil(points.length / (MAX_POINTS / 2));
  const kept = [];
  for (let i = 0; i < points.length; i += size) {
    const piece = points.slice(i, i + size).sort((a, b) => a[1] - b[1]);
    kept.push(...[piece[0], piece[piece.length - 1]].sort((a, b) => a[0] - b[0]));
  }
  return kept;
}

// The running mean with weight `share` on what was before; 0 leaves the values as they are.
function smoothed(values, share) {
  if (!share) return values;
  let mean = null;
  return values.map((value) => {
    if (value === null || value === undefined) return value;
    mean = mean === null ? value : share * mean + (1 - share) * value;
    return mean;
  });
}

class Frame {
  constructor(box, height, [x0, x1], [y0, y1]) {
    this.width = Math.max(box.clientWidth, 200);
    this.height = height;
    if (y0 === y1) [y0, y1] = [y0 - (Math.abs(y0) || 1) * 0.1, y1 + (Math.abs(y1) || 1) * 0.1];
    if (x0 === x1) x1 = x0 + 1;
    Object.assign(this, { x0, x1, y0, y1 });
    this.root = svg("svg", { width: this.width, height, role: "img" });
    box.append(this.root);
  }

  x(value) {
    return EDGE.left + ((value - this.x0) / (this.x1 - this.x0)) * (this.width - EDGE.left - EDGE.right);
  }

  y(value) {
    return this.height - EDGE.bottom - ((value - this.y0) / (this.y1 - this.y0)) * (this.height - EDGE.top - EDGE.bottom);
  }

  at(pixel) {
    return this.x0 + ((pixel - EDGE.left) / (this.width - EDGE.left - EDGE.right)) * (this.x1 - this.x0);
  }

  axes(format = number) {
    for (const tick of ticks(this.y0, this.y1, 4)) {
      this.root.append(
        svg("line", { class: "grid", x1: EDGE.left, x2: this.width - EDGE.right, y1: this.y(tick), y2: this.y(tick) }),
        svg("text", { class: "tick", x: EDGE.left - 8, y: this.y(tick) + 4, "text-anchor": "end" }, format(tick)));
    }
    for (const tick of ticks(this.x0, this.x1, Math.max(2, this.width / 75))) {
      this.root.append(svg("text", { class: "tick", x: this.x(tick), y: this.height - 6, "text-anchor": "middle" }, number(tick)));
    }
  }
}

// A card with lines. series: [{name, color, x, y, raw}]; raw is drawn faintly behind a smoothed y.
function lineChart(title, series, xLabel, height = 170) {
  const box = el("div", { class: "plot" });
  const said = el("span", { class: "said" });
  const card = el("figure", { class: "card", "data-metric": title }, el("figcaption", {}, el("b", {}, title), said), box);
  const draw = () => {
    box.replaceChildren();
    const frame = new Frame(box, height, extent(series.flatMap((one) => one.x)), extent(series.flatMap((one) => one.raw || one.y)));
    frame.axes();
    for (const one of series) {
      const path = (y) => thinned(one.x, y).map(([px, py], i) => `${i ? "L" : "M"}${frame.x(px).toFixed(1)} ${frame.y(py).toFixed(1)}`).join("");
      if (one.raw) frame.root.append(svg("path", { class: "line faint", d: path(one.raw), stroke: one.color }));
      frame.root.append(svg("path", { class: "line", d: path(one.y), stroke: one.color }));
      const points = thinned(one.x, one.y);
      if (points.length <= 40) for (const [px, py] of points) frame.root.append(svg("circle", { cx: frame.x(px), cy: frame.y(py), r: 2, fill: one.color }));
    }
    const cross = svg("line", { class: "cross", y1: EDGE.top, y2: height - EDGE.bottom, visibility: "hidden" });
    frame.root.append(cross);
    hovering(frame, box, (x) => {
      cross.setAttribute("visibility", x === null ? "hidden" : "visible");
      said.replaceChildren();
      if (x === null) return;
      const near = series.map((one) => nearest(one, x)).filter((found) => found);
      if (!near.length) return;
      cross.setAttribute("x1", frame.x(near[0].x));
      cross.setAttribute("x2", frame.x(near[0].x));
      said.append(`${xLabel} ${number(near[0].x)} `, ...near.map((found) => el("em", { class: "value" }, dot(found.color), number(found.y))));
    });
  };
  drawnWhenSeen(card, height, draw);
  return card;
}

function dot(color) {
  const mark = el("i", { class: "dot" });
  mark.style.background = color;
  return mark;
}

function nearest(series, x) {
  let best = null;
  for (let i = 0; i < series.x.length; i++) {
    if (series.y[i] === null || series.y[i] === undefined) continue;
    const away = Math.abs(series.x[i] - x);
    if (!best || away < best.away) best = { away, x: series.x[i], y: series.y[i], color: series.color };
  }
  return best;
}

// All charts on the page point at the same x.
function hovering(frame, box, show) {
  box.onHover = show;
  const tell = (x) => document.querySelectorAll(".plot").forEach((plot) => plot.onHover && plot.onHover(x));
  frame.root.addEventListener("mousemove", (event) => tell(frame.at(event.clientX - frame.root.getBoundingClientRect().left)));
  frame.root.addEventListener("mouseleave", () => tell(null));
}

const seen = new IntersectionObserver((entries) => entries.forEach((entry) => entry.isIntersecting && entry.target.draw && entry.target.draw()));

// `height` is kept free until then, so that the page does not jump.
function drawnWhenSeen(card, height, draw) {
  card.querySelector(".plot").style.minHeight = `${height}px`;
  card.redraw = () => { card.draw = () => { card.draw = null; draw(); }; seen.unobserve(card); seen.observe(card); };
  card.redraw();
}

let width = 0;
window.addEventListener("resize", () => {
  if (width === window.innerWidth) return;
  width = window.innerWidth;
  document.querySelectorAll(".card").forEach((card) => card.redraw && card.redraw());
});

// Stacked bars. bars: [{label, parts: {name: value}}]; colors: name -> color, in the order of the stack.
function stackedBars(title, bars, colors, top, height = 220) {
  const box = el("div", { class: "plot" });
  const said = el("span", { class: "said" });
  const card = el("figure", { class: "card wide" }, el("figcaption", {}, el("b", {}, title), said), box);
  drawnWhenSeen(card, height, () => {
    box.replaceChildren();
    const frame = new Frame(box, height, [0, bars.length], [0, top]);
    frame.axes();
    frame.root.querySelectorAll("text[text-anchor=middle]").forEach((text) => text.remove());
    const every = Math.ceil(bars.length / Math.max(2, frame.width / 60));
    bars.forEach((bar, i) => {
      let below = 0;
      const column = svg("g", {});
      for (const [name, color] of Object.entries(colors)) {
        const value = bar.parts[name] || 0;
        if (!value) continue;
        column.append(svg("rect", { x: frame.x(i + 0.08), width: Math.max(0.5, frame.x(i + 0.92) - frame.x(i + 0.08)),
                                    y: frame.y(below + value), height: Math.max(0, frame.y(below) - frame.y(below + value)), fill: color }));
        below += value;
      }
      column.append(svg("rect", { class: "catch", x: frame.x(i), width: frame.x(i + 1) - frame.x(i), y: EDGE.top, height: height - EDGE.top - EDGE.bottom }));
      column.addEventListener("mouseenter", () => said.replaceChildren(bar.label + " ",
        ...Object.entries(bar.parts).filter(([, value]) => value).map(([name, value]) => el("em", { class: "value" }, dot(colors[name]), `${name} ${number(value, 3)} s`))));
      frame.root.append(column);
      if (i % every === 0) frame.root.append(svg("text", { class: "tick", x: frame.x(i + 0.5), y: height - 6, "text-anchor": "middle" }, bar.short));
    });
  });
  return card;
}

// How many of the values lie in each of some equal steps. kinds: [{name, color, values}], stacked.
function histogram(title, kinds, bins = 32, height = 120) {
  const box = el("div", { class: "plot" });
  const said = el("span", { class: "said" });
  const card = el("figure", { class: "card" }, el("figcaption", {}, el("b", {}, title), said), box);
  drawnWhenSeen(card, height, () => {
    box.replaceChildren();
    let [low, high] = extent(kinds.flatMap((kind) => (kind.values.length ? extent(kind.values) : [])));
    if (low === high) [low, high] = [low - 0.5, high + 0.5];
    const counts = kinds.map((kind) => {
      const found = new Array(bins).fill(0);
      for (const value of kind.values) if (value !== null) found[Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins))]++;
      return found;
    });
    const sums = counts[0].map((_, bin) => counts.reduce((sum, one) => sum + one[bin], 0));
    const frame = new Frame(box, height, [low, high], [0, Math.max(1, ...sums)]);
    frame.axes();
    for (let bin = 0; bin < bins; bin++) {
      let below = 0;
      const from = low + (bin / bins) * (high - low), to = low + ((bin + 1) / bins) * (high - low);
      kinds.forEach((kind, k) => {
        const count = counts[k][bin];
        if (!count) return;
        frame.root.append(svg("rect", { x: frame.x(from) + 0.5, width: Math.max(0.5, frame.x(to) - frame.x(from) - 1), y: frame.y(below + count),
                                        height: frame.y(below) - frame.y(below + count), fill: kind.color }));
        below += count;
      });
      const area = svg("rect", { class: "catch", x: frame.x(from), width: frame.x(to) - frame.x(from), y: EDGE.top, height: height - EDGE.top - EDGE.bottom });
      area.addEventListener("mouseenter", () => said.replaceChildren(`${number(from, 3)} to ${number(to, 3)}: `,
        ...kinds.map((kind, k) => el("em", { class: "value" }, dot(kind.color), `${number(counts[k][bin])} ${kind.name}`))));
      frame.root.append(area);
    }
  });
  return card;
}
