"use strict";
// Helpers for elements, colours and numbers. Text from the data is always inserted as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);

// Okabe and Ito's colours, in an order in which neighbours differ most; lines differ by dashes as well
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d1f"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 4", "6 2 1 2"];
const PARTS = {
  t: ["target", "#d55e00"], p: ["positive", "#009e73"], n: ["negative", "#56b4e9"], a: ["ambiguous", "#8f959c"],
};

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  return node;
}

function el(tag, attributes, ...children) {
  const node = set(document.createElement(tag), attributes);
  node.append(...children.filter((child) => child != null));
  return node;
}

function svg(tag, attributes, ...children) {
  const node = set(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes);
  node.append(...children);
  return node;
}

const color = (i) => COLORS[i % COLORS.length];
const dash = (i) => DASHES[i % DASHES.length];
const percent = (value, digits = 2) => (value == null ? "" : (100 * value).toFixed(digits));
// A share in percent with one decimal; shares that would read 0.0 keep their first digit
const share = (value) => (value > 0 && value < 0.001 ? String(+(100 * value).toPrecision(1)) : +value ? percent(value, 1) : "0");
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const unique = (values) => [...new Set(values)];
const note = (text) => el("p", { class: "note" }, text);

// The reader's choices by id of the control; they survive a redraw of the section.
const chosen = {};

// A labelled <select>; options are strings or [value, text].
function choice(id, label, options, redraw) {
  const list = options.map((option) => (Array.isArray(option) ? option.map(String) : [String(option), String(option)]));
  if (!list.some(([value]) => value === chosen[id])) chosen[id] = list.length ? list[0][0] : "";
  const box = el("select", { id, onchange: () => { chosen[id] = box.value; redraw(); } });
  for (const [value, text] of list) box.append(el("option", { value, selected: value === chosen[id] }, text));
  return el("label", {}, label, box);
}

// Text that wraps at spaces only; parts longer than LONGEST_WORD, such as hashes and paths, may break anywhere.
const LONGEST_WORD = 24;
function words(text) {
  const fragment = document.createDocumentFragment();
  for (const part of String(text ?? "").split(/(\s+)/)) {
    if (part.length > LONGEST_WORD) fragment.append(el("span", { class: "long" }, part));
    else fragment.append(/[-/?]/.test(part) ? el("span", { class: "word" }, part) : part);
  }
  return fragment;
}

// A table; a cell is text, or {text, share} with a bar that fills this share of the cell.
function table(head, rows, attributes) {
  const cell = (content) => {
    if (content == null || typeof content !== "object" || content instanceof Node) return el("td", {}, words(content));
    const share = Math.max(0, Math.min(1, content.share || 0));
    return el("td", { class: "bar", style: `background-size:${(100 * share).toFixed(1)}% 70%` }, content.text);
  };
  const body = rows.map((row) => el("tr", {}, ...row.map(cell)));
  return el("div", { class: "scroll" }, el("table", attributes,
    el("thead", {}, el("tr", {}, ...head.map((title) => el("th", { scope: "col" }, words(title))))), el("tbody", {}, ...body)));
}

function swatches(pairs) {
  return el("ul", { class: "legend" }, ...pairs.map(([name, fill]) =>
    el("li", {}, el("span", { class: "swatch", style: `background:${fill}` }), name)));
}

// Each evaluation gets its full title and an index. A run has one colour; its evaluations differ by dashes.
let counter = 0;
for (const run of data.runs) {
  run.shown = true;
  run.index = data.runs.indexOf(run);
  for (const evaluation of run.evaluations) {
    evaluation.run = run;
    evaluation.title = `${run.name}, ${evaluation.name}`;
    evaluation.index = counter++;
  }
}
const runs = () => data.runs.filter((run) => run.shown);
const evaluations = () => runs().flatMap((run) => run.evaluations);

// The number of each class, the same in every section, whichever runs are shown: the class id, or a number above all ids
// if an earlier run has another class with this id.
const classNumbers = new Map();
let beyond = 1 + Math.max(-1, ...data.runs.flatMap((run) => Object.keys(run.classes).map(Number)));
{
  const taken = new Set();
  for (const run of data.runs) {
    for (const [id, name] of Object.entries(run.classes)) {
      if (classNumbers.has(name)) continue;
      const number = taken.has(+id) || +id < 0 ? beyond++ : +id;
      classNumbers.set(name, number);
      taken.add(number);
    }
  }
}

function classNumber(name) {
  if (!classNumbers.has(name)) classNumbers.set(name, beyond++);
  return classNumbers.get(name);
}

// Okabe and Ito's colours first, then hues that are far from the previous ones
function classColor(name) {
  const n = classNumber(name);
  if (n < COLORS.length) return COLORS[n];
  const hue = (0.34 + n * 0.618034) % 1;
  return `hsl(${(360 * hue).toFixed(1)} ${[70, 50][n % 2]}% ${[24, 32, 40][n % 3]}%)`;
}

// [id, title, draw(root)] of each section, in the order of the page
const SECTIONS = [];
