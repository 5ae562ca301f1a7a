"use strict";
// Reads values out of the charts; large.js draws one of them large. All listeners are on the document, so that sections may
// be replaced while the page is open.

const drawn = new WeakMap();
const said = document.getElementById("said");
const large = document.getElementById("large"), canvas = document.getElementById("large-chart");
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
const escaped = text => String(text).replace(/[&<>"']/g, letter => `&#${letter.charCodeAt(0)};`);

function words(value) {
  if (value === null || Number.isNaN(value)) return "NaN";
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e6)) return value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
  return value.toLocaleString("en", {maximumSignificantDigits: size >= 1000 ? 7 : 4, maximumFractionDigits: size >= 1000 ? 0 : 20});
}

// The chart's data, unpacked once: every line as arrays of steps, means, lowest and highest values.
function chartOf(figure) {
  if (drawn.has(figure)) return drawn.get(figure);
  const chart = JSON.parse(figure.dataset.chart);
  for (const line of chart.lines) {
    if (!Array.isArray(line.step)) line.step = Array.from({length: line.step.count}, (_, i) => line.step.from + i * line.step.by);
    line.binned = Boolean(line.mean);
    for (const name of ["mean", "low", "high"]) line[name] = (line[name] || line.value).map(value => value === null ? NaN : value);
  }
  chart.steps = [...new Set(chart.lines.flatMap(line => line.step))].sort((a, b) => a - b);
  drawn.set(figure, chart);
  return chart;
}

// Index of the first step that is not below `step`.
function from(steps, step) {
  let low = 0, high = steps.length;
  while (low < high) { const middle = (low + high) >> 1; if (steps[middle] < step) low = middle + 1; else high = middle; }
  return low;
}

function nearest(steps, step) {
  const after = clamp(from(steps, step), 0, steps.length - 1);
  return after && step - steps[after - 1] <= steps[after] - step ? after - 1 : after;
}

function reading(chart, step, hidden = new Set()) {
  const lines = chart.lines.filter(line => line.step.length && !hidden.has(line.name));
  return `step ${step.toLocaleString("en")}: ` + lines.map(line => {
    const i = nearest(line.step, step);
    const spread = line.binned ? ` (${words(line.low[i])} to ${words(line.high[i])})` : "";
    return `${line.name} ${words(line.mean[i])}${spread}` + (line.step[i] === step ? "" : ` at ${line.step[i].toLocaleString("en")}`);
  }).join(" · ");
}

// --- small charts: a cursor over all of them, and values by mouse and keys

let cursorAt = null;

function showAll(step) {
  for (const figure of document.querySelectorAll("main figure.plot")) {
    const svg = figure.querySelector("svg.chart"), output = figure.querySelector("output"), cursor = svg.querySelector(".cursor");
    if (output.dataset.resting === undefined) output.dataset.resting = output.textContent;
    if (step === null) { cursor.setAttribute("d", ""); output.textContent = output.dataset.resting; continue; }
    if (!figure.offsetParent) continue;
    const chart = chartOf(figure);
    if (!chart.steps.length) continue;
    const at = chart.steps[nearest(chart.steps, step)];
    const x = chart.left + (clamp(at, chart.first, chart.last) - chart.first) / (chart.last - chart.first) * (chart.right - chart.left);
    cursor.setAttribute("d", `M${x} ${chart.top}V${chart.bottom}`);
    output.textContent = reading(chart, at);
  }
  cursorAt = step;
}

function stepUnder(event, svg, chart) {
  const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
  return chart.first + (x - chart.left) / (chart.right - chart.left) * (chart.last - chart.first);
}

const MOVES = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity};

document.addEventListener("pointermove", event => {
  const svg = event.target.closest?.("main svg.chart");
  if (svg) showAll(stepUnder(event, svg, chartOf(svg.closest("figure"))));
  else if (cursorAt !== null && !document.activeElement.matches(".enlarge")) showAll(null);
});
document.addEventListener("focusout", event => { if (event.target.matches(".enlarge")) showAll(null); });
document.addEventListener("keydown", event => {
  const button = event.target.closest?.(".enlarge");
  if (!button || !(event.key in MOVES)) return;
  const chart = chartOf(button.closest("figure"));
  if (!chart.steps.length) return;
  const now = cursorAt === null ? chart.steps.length - 1 : nearest(chart.steps, cursorAt);
  const step = chart.steps[cursorAt === null ? now : clamp(now + MOVES[event.key], 0, chart.steps.length - 1)];
  showAll(step);
  said.textContent = `${chart.title}, ${reading(chart, step)}`;
  event.preventDefault();
});

document.addEventListener("click", event => {
  const button = event.target.closest?.("button"), figure = event.target.closest?.("main figure.plot");
  if (figure && (event.target.closest("svg.chart") || button)) open(figure);
  else if (button?.dataset.tool) TOOLS[button.dataset.tool]();
  else if (button?.dataset.line) toggle(button, view.hidden, button.dataset.line, draw);
  else if (button?.dataset.hue) {
    const section = button.closest("section"), hidden = new Set((section.dataset.hidden || "").split(" ").filter(Boolean));
    toggle(button, hidden, button.dataset.hue, () => { section.dataset.hidden = [...hidden].join(" "); });
  } else if (button?.dataset.print) {
    document.documentElement.dataset.print = button.dataset.print;
    print();
  }
});

function toggle(button, hidden, name, after) {
  if (!hidden.delete(name)) hidden.add(name);
  button.setAttribute("aria-pressed", !hidden.has(name));
  after();
}

addEventListener("beforeprint", () => {
  if (document.documentElement.dataset.print === "all") document.querySelectorAll("details").forEach(one => { one.open = true; });
});
