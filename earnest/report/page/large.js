// --- the large chart

let view = null; // {chart, first, last, hidden, smooth, points, log, over, at}

// What a chart may be drawn over: from steps to the axis and back, and a value of it in words.
function axesOf() {
  const {epoch, time} = JSON.parse(document.querySelector("main").dataset.axes || "{}"), found = {};
  found.step = {name: "step", of: step => step, back: step => step, said: step => step.toLocaleString("en")};
  if (epoch) found.epoch = {name: "epoch", of: step => step / epoch, back: value => value * epoch, said: value => words(Number(value.toFixed(3)))};
  if (time) found.time = {name: "time", of: step => between(time.step, time.seconds, step), back: value => between(time.seconds, time.step, value), said: duration};
  return found;
}

// The value at `x` of a line through points, which goes on beyond its ends.
function between(xs, ys, x) {
  const i = clamp(from(xs, x), 1, xs.length - 1);
  return ys[i - 1] + (xs[i] - xs[i - 1] ? (x - xs[i - 1]) / (xs[i] - xs[i - 1]) * (ys[i] - ys[i - 1]) : 0);
}

function duration(seconds) {
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([size]) => Math.abs(seconds) >= 2 * size) || [1, "s"];
  return `${words(Number((seconds / size).toPrecision(3)))} ${unit}`;
}

const DURATIONS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

function open(figure) {
  const chart = chartOf(figure);
  view = {chart, first: chart.first, last: chart.last, hidden: new Set(), smooth: 0, points: false, log: chart.log, over: axesOf().step, at: null};
  document.getElementById("large-title").textContent = chart.title + (chart.unit ? ` · ${chart.unit}` : "");
  document.getElementById("large-lines").replaceChildren(...chart.lines.map(line => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `line-${line.hue}`;
    button.dataset.line = line.name;
    button.setAttribute("aria-pressed", "true");
    button.innerHTML = `<svg viewBox="0 0 34 12" aria-hidden="true"><path class="line hue-${line.hue}" d="M0 6H34"/></svg>${escaped(line.name)}`;
    return button;
  }));
  for (const input of large.querySelectorAll("input")) {
    if (input.type === "range") input.value = 0; else input.checked = input.name === "log" && chart.log;
  }
  const over = large.querySelector("[name=over]"), known = axesOf();
  over.value = "step";
  for (const option of over.options) option.hidden = option.disabled = !known[option.value];
  over.closest("label").hidden = Object.keys(known).length < 2;
  const positive = chart.lines.every(line => line.low.every(value => !(value <= 0)));
  large.querySelector("[name=log]").disabled = !positive;
  large.showModal();
  draw();
  canvas.focus();
}

// The mean around each point, with weights that fall to a third `reach` steps away on either side: no lag, no bias.
function smoothed(line, reach) {
  const {step, mean} = line, sum = mean.map(() => 0), weight = mean.map(() => 0);
  for (const order of [1, -1]) {
    let total = 0, heavy = 0, before = null;
    for (let i = order > 0 ? 0 : step.length - 1; i >= 0 && i < step.length; i += order) {
      if (Number.isNaN(mean[i])) continue;
      const kept = before === null ? 0 : Math.exp(-Math.abs(step[i] - before) / reach);
      before = step[i];
      [total, heavy] = [kept * total, kept * heavy];
      sum[i] += total + mean[i] / 2; weight[i] += heavy + 0.5;
      total += mean[i]; heavy += 1;
    }
  }
  return mean.map((value, i) => Number.isNaN(value) ? NaN : sum[i] / weight[i]);
}

// What is drawn of a line between two steps: its points, or at most `most` stretches of them.
function seen(line, first, last, most) {
  const start = Math.max(0, from(line.step, first) - 1), end = Math.min(line.step.length, from(line.step, last) + 1);
  const size = Math.ceil((end - start) / most), part = {step: [], mean: [], low: [], high: [], binned: line.binned || size > 1};
  for (let i = start; i < end; i += size) {
    let sum = 0, count = 0, low = Infinity, high = -Infinity;
    for (let j = i; j < Math.min(end, i + size); j++) {
      if (Number.isNaN(line.mean[j])) continue;
      sum += line.mean[j]; count++; low = Math.min(low, line.low[j]); high = Math.max(high, line.high[j]);
    }
    part.step.push(line.step[Math.min(end - 1, i + (size >> 1))]);
    part.mean.push(count ? sum / count : NaN);
    part.low.push(count ? low : NaN);
    part.high.push(count ? high : NaN);
  }
  return part;
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const size = power * [1, 2, 5, 10].find(factor => factor * power >= rough * 0.999), found = [];
  for (let i = Math.ceil(low / size); i * size <= high; i++) found.push(Number((i * size).toPrecision(12)));
  return found;
}

function durations(low, high, count) {
  const size = DURATIONS.find(size => (high - low) / size <= count), found = [];
  if (!size || high - low < 1) return ticks(low, high, count);
  for (let i = Math.ceil(low / size); i * size <= high; i++) found.push(i * size);
  return found;
}

function decades(low, high) {
  const found = [];
  for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power++) found.push(10 ** power);
  return found.length > 1 ? found : ticks(low, high, 5).filter(tick => tick > 0);
}

// The values that must be in the picture: those of the server's choice if all is shown, else what is seen.
function range(parts) {
  const {chart, log, first, last, hidden} = view, all = first === chart.first && last === chart.last;
  if (all && !hidden.size && log === chart.log && !view.points) return [chart.low, chart.high];
  const values = parts.flatMap(part => view.points ? [...part.low, ...part.high] : part.mean).filter(Number.isFinite);
  const rungs = all ? chart.rungs.map(rung => rung.value) : [];
  let low = Math.min(...values.slice(0, 1), ...rungs), high = Math.max(...values.slice(0, 1), ...rungs);
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  if (!Number.isFinite(low)) return [chart.low, chart.high];
  if (log) return [low / 1.1, high * 1.1];
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - margin, high + margin];
}

function draw() {
  const {chart, first, last, smooth, points, log, over} = view;
  const width = Math.max(300, canvas.clientWidth || 800), height = clamp(innerHeight - 290, 220, 640);
  const labels = Math.max(0, ...chart.rungs.map(rung => rung.label.length)) * 7;
  const box = {left: 58, right: width - 16 - (width > 600 ? labels : 0), top: 22, bottom: height - 30};
  const shown = chart.lines.filter(line => !view.hidden.has(line.name));
  const reach = smooth ** 2 * (chart.last - chart.first) / 8;
  const parts = shown.map(line => ({line, ...seen(smooth ? {...line, mean: smoothed(line, reach)} : line, first, last, (box.right - box.left) / 2)}));
  const [low, high] = range(parts);
  const [start, end] = [over.of(first), over.of(last)], count = width > 600 ? 8 : 4;
  const along = value => box.left + (value - start) / (end - start || 1) * (box.right - box.left), x = step => along(over.of(step));
  const scale = value => log ? Math.log10(Math.max(value, low)) : value;
  const y = value => box.bottom - (scale(value) - scale(low)) / (scale(high) - scale(low)) * (box.bottom - box.top);
  const put = number => number.toFixed(1);
  const path = (steps, values) => {
    let text = "", pen = "M";
    steps.forEach((step, i) => { if (Number.isNaN(values[i])) { pen = "M"; return; } text += `${pen}${put(x(step))} ${put(y(values[i]))}`; pen = "L"; });
    return text;
  };
  const out = [`<defs><clipPath id="large-clip"><rect x="${box.left}" y="${box.top}" width="${Math.max(0, box.right - box.left)}" height="${box.bottom - box.top}"/></clipPath></defs>`];
  for (const tick of log ? decades(low, high) : ticks(low, high, 6)) out.push(`<path class="grid" d="M${box.left} ${put(y(tick))}H${box.right}"/><text x="${box.left - 7}" y="${put(y(tick) + 4)}" text-anchor="end">${words(tick)}</text>`);
  for (const tick of over.name === "time" ? durations(start, end, count) : ticks(start, end, count)) if (over.name !== "step" || Number.isInteger(tick)) out.push(`<text x="${put(along(tick))}" y="${box.bottom + 18}" text-anchor="${along(tick) > width - 30 ? "end" : "middle"}">${over.said(tick)}</text>`);
  out.push(`<path class="axis" d="M${box.left} ${box.bottom}H${box.right}"/><text x="2" y="${box.bottom + 18}">${over.name}</text><g clip-path="url(#large-clip)">`);
  for (const rung of chart.rungs) {
    if (rung.band) out.push(`<rect class="rung-band" x="${box.left}" width="${Math.max(0, box.right - box.left)}" y="${put(y(rung.band[1]))}" height="${put(Math.max(0, y(rung.band[0]) - y(rung.band[1])))}"/>`);
    out.push(`<path class="rung rung-${rung.stroke}" d="M${box.left} ${put(y(rung.value))}H${box.right}"/>`);
  }
  for (const part of parts) {
    const hue = `hue-${part.line.hue}`, edge = part.step.map((step, i) => [step, i]).filter(([, i]) => !Number.isNaN(part.low[i]));
    if (part.binned) out.push(`<path class="band ${hue}" d="M${[...edge.map(([step, i]) => `${put(x(step))} ${put(y(part.high[i]))}`), ...edge.reverse().map(([step, i]) => `${put(x(step))} ${put(y(part.low[i]))}`)].join("L")}Z"/>`);
    else if (smooth) out.push(`<path class="line faint ${hue}" d="${path(part.step, part.low)}"/>`);
    out.push(`<path class="line ${hue}" d="${path(part.step, part.mean)}"/>`);
    if (points) {
      const start = Math.max(0, from(part.line.step, first)), end = from(part.line.step, last + 1);
      const kinds = part.line.binned ? ["low", "high"] : ["low"];
      for (const kind of kinds) for (let i = start; i < end; i++) if (!Number.isNaN(part.line[kind][i])) out.push(`<circle class="dot ${hue}" cx="${put(x(part.line.step[i]))}" cy="${put(y(part.line[kind][i]))}" r="2"/>`);
    }
  }
  for (const [step] of chart.marks) out.push(`<path class="mark" d="M${put(x(step))} ${box.top}V${box.bottom}"/>`);
  out.push(`<path class="cursor" d=""/><rect class="chosen" x="0" y="${box.top}" width="0" height="${box.bottom - box.top}"/></g>`);
  for (const [step, name] of chart.marks) if (step >= first && step <= last) out.push(`<text class="mark-name" x="${put(x(step))}" y="${box.top - 7}" text-anchor="middle">${escaped(name)}</text>`);
  if (width > 600) for (const rung of chart.rungs) if (rung.value >= low && rung.value <= high) out.push(`<text x="${box.right + 6}" y="${put(y(rung.value) + 4)}">${escaped(rung.label)}</text>`);
  canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
  canvas.innerHTML = out.join("");
  Object.assign(view, {box, x});
  canvas.setAttribute("aria-valuemin", first);
  canvas.setAttribute("aria-valuemax", last);
  show(view.at);
}

function show(step) {
  const {chart, box, x, hidden, first, last} = view, output = document.getElementById("large-said");
  const thinned = chart.lines.filter(line => line.binned).map(line => `${line.name}: ${line.of.toLocaleString("en")} steps in ${line.step.length.toLocaleString("en")} points, each with its mean, lowest and highest`);
  const steps = chart.steps.filter(one => one >= first && one <= last);
  view.at = step === null || !steps.length ? null : steps[nearest(steps, step)];
  canvas.querySelector(".cursor").setAttribute("d", view.at === null ? "" : `M${x(view.at)} ${box.top}V${box.bottom}`);
  output.textContent = view.at === null ? thinned.join(" · ") || `steps ${first.toLocaleString("en")} to ${last.toLocaleString("en")}` : reading(chart, view.at, hidden) + alongside(view.at);
  canvas.setAttribute("aria-valuenow", view.at ?? first);
  canvas.setAttribute("aria-valuetext", output.textContent);
}

function alongside(step) {
  return view.over.name === "step" ? "" : ` · ${view.over.name} ${view.over.said(view.over.of(step))}`;
}

function zoom(first, last) {
  const {chart} = view;
  if (last - first < 1) { const middle = (first + last) / 2; first = middle - 0.5; last = middle + 0.5; }
  const span = Math.min(last - first, chart.last - chart.first), start = clamp(first, chart.first, chart.last - span);
  Object.assign(view, {first: Math.round(start), last: Math.max(Math.round(start) + 1, Math.round(start + span))});
  draw();
}

function zoomBy(factor) {
  const middle = view.at ?? (view.first + view.last) / 2;
  zoom(middle - (middle - view.first) * factor, middle + (view.last - middle) * factor);
}

const everything = () => zoom(view.chart.first, view.chart.last);

function stepAt(event) {
  const {box, first, last, over} = view, rect = canvas.getBoundingClientRect();
  const px = (event.clientX - rect.left) / rect.width * canvas.viewBox.baseVal.width;
  const [start, end] = [over.of(first), over.of(last)];
  return clamp(over.back(start + clamp((px - box.left) / (box.right - box.left), 0, 1) * (end - start)), first, last);
}

function save(text, type, ending) {
  const link = document.createElement("a"), name = view.chart.title.replace(/[^\p{L}\p{N}]+/gu, "_").slice(0, 60) || "chart";
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = `${name}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A row a step. A cell that begins like a formula gets a ' before it, as spreadsheets would calculate it.
function csv() {
  const cell = text => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const heading = text => cell(/^[=+\-@\t]/.test(text) ? `'${text}` : text);
  const columns = view.chart.lines.flatMap(line => (line.binned ? ["mean", "low", "high"] : ["mean"]).map(kind => ({
    name: line.binned ? `${line.name} ${kind}` : line.name, at: new Map(line.step.map((step, i) => [step, line[kind][i]])),
  })));
  const rows = view.chart.steps.map(step => [step, ...columns.map(column => column.at.has(step) ? column.at.get(step) : "")].join(","));
  return [["step", ...columns.map(column => heading(column.name))].join(","), ...rows].join("\n") + "\n";
}

const DRAWN = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family", "font-weight"];

function svg() {
  const copy = canvas.cloneNode(true), {width, height} = canvas.viewBox.baseVal;
  const originals = [canvas, ...canvas.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, i) => {
    const style = getComputedStyle(originals[i]);
    for (const name of DRAWN) element.setAttribute(name, style.getPropertyValue(name));
    element.removeAttribute("class");
  });
  for (const name of ["id", "role", "tabindex", "aria-labelledby", "aria-valuemin", "aria-valuemax", "aria-valuenow", "aria-valuetext"]) copy.removeAttribute(name);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const back = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  back.setAttribute("width", "100%");
  back.setAttribute("height", "100%");
  back.setAttribute("fill", getComputedStyle(large).backgroundColor);
  copy.prepend(back);
  return new XMLSerializer().serializeToString(copy);
}

const TOOLS = {
  close: () => large.close(), in: () => zoomBy(0.5), out: () => zoomBy(2), all: everything,
  csv: () => save(csv(), "text/csv", "csv"), svg: () => save(svg(), "image/svg+xml", "svg"),
};

let drag = null;

canvas.addEventListener("pointerdown", event => { drag = stepAt(event); canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointermove", event => {
  const step = stepAt(event);
  show(step);
  if (drag === null) return;
  const chosen = canvas.querySelector(".chosen"), [start, end] = [drag, step].sort((a, b) => a - b);
  chosen.setAttribute("x", view.x(start));
  chosen.setAttribute("width", view.x(end) - view.x(start));
});
canvas.addEventListener("pointerup", event => {
  const [start, end] = [drag ?? 0, stepAt(event)].sort((a, b) => a - b), far = view.x(end) - view.x(start) > 8;
  drag = null;
  canvas.querySelector(".chosen").setAttribute("width", 0);
  if (far) zoom(start, end);
});
canvas.addEventListener("pointercancel", () => { drag = null; });
canvas.addEventListener("pointerleave", () => { if (drag === null) show(null); });
canvas.addEventListener("dblclick", everything);
canvas.addEventListener("keydown", event => {
  const {chart} = view, keys = {"+": TOOLS.in, "=": TOOLS.in, "-": TOOLS.out, "0": everything};
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (keys[event.key]) keys[event.key]();
  else if (event.key in MOVES && chart.steps.length) {
    const steps = chart.steps.filter(one => one >= view.first && one <= view.last);
    if (!steps.length) return;
    const now = view.at === null ? steps.length - 1 : nearest(steps, view.at);
    show(steps[view.at === null ? now : clamp(now + MOVES[event.key], 0, steps.length - 1)]);
  } else return;
  event.preventDefault();
});
large.addEventListener("input", event => {
  const {name, type, checked, value} = event.target;
  view[name] = name === "over" ? axesOf()[value] : type === "checkbox" ? checked : Number(value) / 100;
  draw();
});
large.addEventListener("close", () => { view = null; });
addEventListener("resize", () => { if (view) draw(); });
