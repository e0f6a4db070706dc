"use strict";
// Elements, and text that nobody vetted. Nothing on the page is ever made from a string of html.

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// What has no look of its own, or turns the text around it: controls, direction marks, zero widths, halves of a pair.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

// Nodes for a text, with what is unseen as its number.
function visible(text) {
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(UNSEEN)) {
    nodes.push(text.slice(end, found.index));
    const code = "U+" + found[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(el("span", { class: "unseen", title: code }, code));
    end = found.index + found[0].length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== "");
}

function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1e4) return Math.round(value).toLocaleString("en");
  if (size < 1e-3 && size > 0) return value.toExponential(2);
  return String(Number(value.toPrecision(digits)));
}

function percent(share) {
  return share === null || share === undefined ? "–" : (100 * share).toFixed(share && share < 0.1 ? 1 : 0) + " %";
}

function choice(label, value, options, onchange) {
  return el("label", { class: "field" }, el("span", {}, label),
    el("select", { "aria-label": label, onchange: (event) => onchange(event.target.value) },
      options.map(([key, words]) => el("option", { value: key, selected: String(key) === String(value) }, words))));
}

function entry(label, value, type, onchange, attributes = {}) {
  return el("label", { class: "field" }, el("span", {}, label),
    el("input", { type, value, "aria-label": label, onchange: (event) => onchange(event.target.value), ...attributes }));
}
