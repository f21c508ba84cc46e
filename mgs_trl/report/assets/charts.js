"use strict";
// Line charts: one SVG each, drawn for the width at hand. Lines differ in colour, dash and marker.

const DASHES = ["", "7 3", "2 3", "10 3 2 3", "14 4", "5 2 1 2 1 2"];
const COLOURS = 6;

function svgElement(name, attributes, parent) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (parent) parent.append(element);
  return element;
}

function htmlElement(name, properties, parent) {
  const element = Object.assign(document.createElement(name), properties);
  if (parent) parent.append(element);
  return element;
}

/** Number for people: four significant digits, a real minus sign. */
function show(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(+value.toPrecision(4));
  return text.replaceAll("-", "−");
}

function marker(style, x, y, parent) {
  const shapes = [
    "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0", "M-3,-3h6v6h-6z", "M0,-4L4,3H-4z", "M0,-4L4,0L0,4L-4,0z", "M-4,-3H4L0,4z", "M-4,-1h3v-3h2v3h3v2h-3v3h-2v-3h-3z",
  ];
  return svgElement("path", { d: shapes[style % shapes.length], transform: `translate(${x},${y})`, fill: "currentColor" }, parent);
}

function dashOf(style) {
  return DASHES[(style + Math.floor(style / COLOURS)) % DASHES.length];
}

/** Mean over a centred window of points, leaving out what is missing. */
function runningMean(values, width) {
  const half = Math.floor(width / 2);
  const sums = [0], counts = [0];
  values.forEach((value, i) => {
    sums.push(sums[i] + (value ?? 0));
    counts.push(counts[i] + (value === null ? 0 : 1));
  });
  return values.map((value, i) => {
    const from = Math.max(0, i - half), to = Math.min(values.length, i + half + 1);
    return counts[to] > counts[from] ? (sums[to] - sums[from]) / (counts[to] - counts[from]) : null;
  });
}

function smoothingOf(choice, points) {
  if (choice === "auto") return points > 40 ? Math.max(5, Math.round(points / 16)) : 1;
  return Number(choice);
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.8);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i === 0 ? 0 : +(i * step).toPrecision(10));
  return ticks;
}

function logTicks(low, high) {
  for (const steps of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const m of steps) if (m * 10 ** power >= low * 0.999 && m * 10 ** power <= high * 1.001) ticks.push(+(m * 10 ** power).toPrecision(3));
    if (ticks.length <= 7 && ticks.length >= 2) return ticks;
  }
  return linearTicks(low, high, 4).filter((tick) => tick > 0);
}

class LineChart {
  constructor(figure, chart, stages) {
    this.figure = figure;
    this.chart = chart;
    this.stages = stages;
    this.hidden = new Set();
    this.smoothing = "auto";
    this.legend = htmlElement("div", { className: "legend" }, figure);
    this.svg = svgElement("svg", { class: "plot", role: "img" }, figure);
    const summary = chart.series.map((s) => `${s.label} ${show(s.values.find((v) => v !== null))} to ${show(s.values.findLast((v) => v !== null))}`);
    this.svg.setAttribute("aria-label", `${chart.title}: ${summary.join("; ")}`);
    chart.series.forEach((series, i) => this.addToLegend(series, i));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.unpoint());
  }

  addToLegend(series, index) {
    const button = htmlElement("button", { type: "button", className: `s${series.style % COLOURS}`, title: "show or hide" }, this.legend);
    button.setAttribute("aria-pressed", "true");
    const key = svgElement("svg", { width: 34, height: 12 }, button);
    svgElement("path", { d: "M1,6H33", stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": dashOf(series.style) }, key);
    marker(series.style, 17, 6, key);
    htmlElement("span", { textContent: series.label, style: "color: var(--ink)" }, button);
    button.addEventListener("click", () => {
      this.hidden.has(index) ? this.hidden.delete(index) : this.hidden.add(index);
      button.setAttribute("aria-pressed", String(!this.hidden.has(index)));
      this.draw(this.smoothing);
    });
  }

  usable(value) {
    return value !== null && value !== undefined && (!this.chart.logarithmic || value > 0);
  }

  draw(smoothing) {
    this.smoothing = smoothing;
    this.svg.replaceChildren();
    this.visible = this.chart.series.filter((_, i) => !this.hidden.has(i));
    this.width = this.svg.clientWidth;
    this.height = this.svg.clientHeight;
    if (!this.visible.length || !this.width) return;
    this.setScales();
    this.drawAxes();
    this.layer = svgElement("g", { "clip-path": `url(#${this.clip()})` }, this.svg);
    for (const series of this.visible) this.drawSeries(series);
    this.cursor = svgElement("g", {}, this.svg);
  }

  setScales() {
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const series of this.visible) {
      left = Math.min(left, series.steps[0]);
      right = Math.max(right, series.steps[series.steps.length - 1]);
      for (const values of [series.values, series.low, series.high])
        for (const value of values) if (this.usable(value)) { low = Math.min(low, value); high = Math.max(high, value); }
    }
    [low, high] = this.withoutOutliers(low, high);
    if (this.chart.zero) { low = Math.min(low, 0); high = Math.max(high, 0); }
    const log = this.chart.logarithmic;
    if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
    if (left === right) [left, right] = [left - 1, right + 1];
    const pad = log ? 1 : (high - low) * 0.05;
    [low, high] = log ? [low / 1.1, high * 1.1] : [low - pad, high + pad];
    this.axis = [low, high];
    this.ticks = log ? logTicks(low, high) : linearTicks(low, high, 5);
    const widest = Math.max(...this.ticks.map((tick) => show(tick).length));
    const box = { left: 12 + widest * 6.6, right: this.width - 10, top: 6, bottom: this.height - 22 };
    const f = log ? Math.log : (v) => v;
    this.box = box;
    this.range = [left, right];
    this.x = (step) => box.left + ((step - left) / (right - left)) * (box.right - box.left);
    this.y = (value) => box.bottom - ((f(value) - f(low)) / (f(high) - f(low))) * (box.bottom - box.top);
  }

  /** An axis that single extreme points do not squeeze everything else on; how many lie beyond it is said. */
  withoutOutliers(low, high) {
    const f = this.chart.logarithmic ? Math.log : (v) => v, back = this.chart.logarithmic ? Math.exp : (v) => v;
    const sorted = this.visible.flatMap((s) => s.values.filter((v) => this.usable(v)).map(f)).sort((a, b) => a - b);
    const at = (q) => sorted[Math.round(q * (sorted.length - 1))];
    const span = at(0.98) - at(0.02), most = at(0.98) + 3 * span, least = at(0.02) - 3 * span;
    this.beyond = 0;
    if (sorted.length < 50 || !(span > 0)) return [low, high];
    this.beyond = sorted.filter((v) => v > most || v < least).length;
    return [f(low) < least ? back(at(0.02) - span) : low, f(high) > most ? back(at(0.98) + span) : high];
  }

  drawAxes() {
    const { left, right, bottom } = this.box;
    for (const tick of this.ticks) {
      const y = this.y(tick);
      svgElement("path", { d: `M${left},${y}H${right}`, class: tick === 0 ? "zero" : "rule" }, this.svg);
      svgElement("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, this.svg).textContent = show(tick);
    }
    let room = Infinity;
    for (const tick of linearTicks(...this.range, Math.max(4, Math.floor(this.width / 75)))) {
      if (!Number.isInteger(tick)) continue;
      const label = svgElement("text", { x: this.x(tick), y: bottom + 16, "text-anchor": this.x(tick) > right - 20 ? "end" : "middle" }, this.svg);
      label.textContent = tick.toLocaleString("en").replaceAll("-", "−");
      room = Math.min(room, this.x(tick) - 4 * label.textContent.length);
    }
    if (room > 32) svgElement("text", { x: 0, y: bottom + 16 }, this.svg).textContent = "step";
    this.drawStages();
  }

  /** Where a stage of a sequence begins: after the last step of the one before it. */
  drawStages() {
    const { left, right, top, bottom } = this.box;
    for (const [name, before] of this.stages) {
      const x = Math.max(left, this.x(before));
      if (x >= right) continue;
      svgElement("path", { d: `M${x},${top}V${bottom}`, class: "stage" }, this.svg);
      svgElement("text", { x: x + 3, y: top + 10, class: "stage" }, this.svg).textContent = name;
    }
  }

  clip() {
    const { left, right, top, bottom } = this.box, id = `clip${[...document.querySelectorAll("figure.chart")].indexOf(this.figure)}`;
    const clip = svgElement("clipPath", { id }, svgElement("defs", {}, this.svg));
    svgElement("rect", { x: left - 4, y: top - 4, width: right - left + 8, height: bottom - top + 8 }, clip);
    if (this.beyond) {
      const note = svgElement("text", { x: right, y: top + 8, "text-anchor": "end" }, this.svg);
      note.textContent = `${this.beyond} point${this.beyond > 1 ? "s" : ""} beyond the axis, left out of means`;
    }
    return id;
  }

  path(series, values) {
    let d = "", pen = "M";
    values.forEach((value, i) => {
      if (!this.usable(value)) { pen = "M"; return; }
      d += `${pen}${this.x(series.steps[i]).toFixed(1)},${this.y(value).toFixed(1)}`;
      pen = "L";
    });
    return d;
  }

  drawSeries(series) {
    const group = svgElement("g", { class: `s${series.style % COLOURS}`, fill: "none", stroke: "currentColor" }, this.layer);
    if (series.low.length) this.drawBand(series, group);
    const window = smoothingOf(this.smoothing, series.values.length);
    if (window > 1) svgElement("path", { d: this.path(series, series.values), "stroke-width": 1, opacity: 0.28 }, group);
    const line = window > 1 ? this.smooth(series.values, window) : series.values;
    svgElement("path", { d: this.path(series, line), "stroke-width": 2, "stroke-dasharray": dashOf(series.style), "stroke-linejoin": "round" }, group);
    const present = line.map((value, i) => i).filter((i) => this.usable(line[i]));
    const every = Math.max(1, Math.ceil(present.length / 7));
    // Offsets differ, so that markers of lines that lie on each other do not hide each other.
    for (let k = Math.min(present.length - 1, (series.style * 2) % every); k >= 0 && k < present.length; k += every)
      marker(series.style, this.x(series.steps[present[k]]), this.y(line[present[k]]), group).setAttribute("stroke", "none");
  }

  /** Running mean; on a logarithmic axis of the logarithms, so that one huge ratio does not carry its neighbours. */
  smooth(values, window) {
    if (this.beyond) values = values.map((value) => (value >= this.axis[0] && value <= this.axis[1] ? value : null));
    if (!this.chart.logarithmic) return runningMean(values, window);
    const logs = values.map((value) => (this.usable(value) ? Math.log(value) : null));
    return runningMean(logs, window).map((value) => (value === null ? null : Math.exp(value)));
  }

  drawBand(series, group) {
    const kept = series.steps.map((_, i) => i).filter((i) => this.usable(series.low[i]) && this.usable(series.high[i]));
    if (!kept.length) return;
    const point = (values) => (i) => `${this.x(series.steps[i]).toFixed(1)},${this.y(values[i]).toFixed(1)}`;
    const d = `M${kept.map(point(series.high)).join("L")}L${kept.reverse().map(point(series.low)).join("L")}Z`;
    svgElement("path", { d, fill: "currentColor", stroke: "none", opacity: 0.1 }, group);
  }

  point(event) {
    if (!this.visible || !this.visible.length || !this.box) return;
    const place = this.svg.getBoundingClientRect(), x = event.clientX - place.left;
    const [left, right] = this.range;
    const wanted = left + ((x - this.box.left) / (this.box.right - this.box.left)) * (right - left);
    let step = null;
    for (const series of this.visible)
      for (const s of series.steps) if (step === null || Math.abs(s - wanted) < Math.abs(step - wanted)) step = s;
    this.cursor.replaceChildren();
    svgElement("path", { d: `M${this.x(step)},${this.box.top}V${this.box.bottom}`, class: "cursor" }, this.cursor);
    const lines = [`step ${step.toLocaleString("en")}`];
    for (const series of this.visible) {
      const i = series.steps.indexOf(step);
      if (i < 0) continue;
      const range = series.low.length ? ` (${show(series.low[i])} to ${show(series.high[i])})` : "";
      lines.push(`${series.label}: ${show(series.values[i])}${range}`);
    }
    showTip(lines, event);
  }

  unpoint() {
    if (this.cursor) this.cursor.replaceChildren();
    hideTip();
  }
}

function showTip(lines, event) {
  const tip = document.getElementById("tip");
  tip.replaceChildren(...lines.map((line) => htmlElement("div", { textContent: line })));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const x = event.clientX + 14 + width > innerWidth ? event.clientX - width - 14 : event.clientX + 14;
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 4))}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}
