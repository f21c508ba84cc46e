"use strict";
// Heat map of cosines, module by step. Negative cells are hatched, so that the sign shows without colour.

const MISSING = -32768;
const SCALE = 32767;

function decode(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Int16Array(bytes.buffer);
}

function cssColour(name) {
  const probe = htmlElement("span", { style: `color: var(${name})` }, document.body);
  const numbers = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return numbers;
}

class HeatMap {
  constructor(card, heat) {
    this.heat = heat;
    this.canvas = card.querySelector(".map");
    this.scale = card.querySelector(".scale canvas");
    this.limitText = card.querySelectorAll(".limit");
    this.table = card.querySelector(".numbers");
    this.pair = card.querySelector("[name=pair]");
    this.order = card.querySelector("[name=order]");
    this.view = card.querySelector("[name=view]");
    this.card = card;
    for (const select of [this.pair, this.order, this.view]) select.addEventListener("change", () => this.draw());
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", hideTip);
  }

  draw() {
    const { heat } = this;
    this.cosines = decode(heat.cosines[this.pair.selectedIndex]);
    const kinds = [...new Set(heat.kinds)];
    this.rows = heat.modules.map((_, i) => i);
    if (this.order.value === "kind") this.rows.sort((a, b) => kinds.indexOf(heat.kinds[a]) - kinds.indexOf(heat.kinds[b]) || a - b);
    const sizes = [...this.cosines].filter((c) => c !== MISSING).map(Math.abs).sort((a, b) => a - b);
    this.limit = Math.max((sizes[Math.floor(sizes.length * 0.98)] ?? 0) / SCALE, 1e-4);
    const numbers = this.view.value === "numbers";
    this.canvas.hidden = numbers;
    this.table.parentElement.hidden = !numbers;
    this.card.querySelector(".scale").hidden = numbers;
    numbers ? this.drawNumbers() : this.drawColours();
  }

  cosine(row, column) {
    const value = this.cosines[row * this.heat.columns.length + column];
    return value === MISSING ? null : value / SCALE;
  }

  /** Colour of a cosine; `hatched` pixels are those of the hatching, drawn on negative cells only. */
  colour(value, hatched) {
    if (value === null) return this.nothing;
    const strength = Math.min(1, Math.abs(value) / this.limit);
    const target = value < 0 ? this.negative : this.positive;
    const mixed = this.ground.map((c, i) => c + (target[i] - c) * strength);
    return value < 0 && hatched ? mixed.map((c, i) => c + (this.ink[i] - c) * (0.12 + 0.4 * strength)) : mixed;
  }

  drawColours() {
    [this.ground, this.negative, this.positive, this.nothing, this.ink] = ["--card", "--negative", "--positive", "--nothing", "--ink"].map(cssColour);
    const ratio = devicePixelRatio || 1, width = this.canvas.parentElement.clientWidth;
    const count = this.rows.length;
    this.cell = Math.max(2, Math.min(18, Math.floor(Math.max(320, Math.min(620, count * 14)) / count)));
    this.labels = width < 520 ? 112 : 210;
    this.bottom = 22;
    const height = this.cell * count + this.bottom;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    const left = Math.round(this.labels * ratio), wide = this.canvas.width - left, high = Math.round(this.cell * count * ratio);
    if (wide < 1) return;
    const image = context.createImageData(wide, high);
    this.fill(image, ratio, (x, y) => this.cosine(this.rows[Math.min(count - 1, Math.floor((y * count) / high))], Math.floor((x * this.heat.columns.length) / wide)));
    context.putImageData(image, left, 0);
    this.drawLabels(context, ratio, width);
    this.drawScale(ratio);
  }

  fill(image, ratio, valueAt) {
    const period = Math.round(5 * ratio), thick = Math.max(1, Math.round(ratio));
    for (let y = 0, at = 0; y < image.height; y++)
      for (let x = 0; x < image.width; x++, at += 4) {
        const [r, g, b] = this.colour(valueAt(x, y), (x + y) % period < thick);
        image.data[at] = r; image.data[at + 1] = g; image.data[at + 2] = b; image.data[at + 3] = 255;
      }
  }

  drawLabels(context, ratio, width) {
    const { heat, rows, cell, labels } = this;
    context.scale(ratio, ratio);
    context.font = "11.5px system-ui, sans-serif";
    context.fillStyle = `rgb(${cssColour("--soft")})`;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const group = (i) => (this.order.value === "kind" ? heat.kinds[rows[i]] : heat.layers[rows[i]] < 0 ? heat.kinds[rows[i]] : `layer ${heat.layers[rows[i]]}`);
    let last = -99;
    for (let i = 0; i < rows.length; i++) {
      const y = (i + 0.5) * cell;
      const label = cell >= 11 ? this.short(heat.modules[rows[i]]) : group(i);
      if (cell < 11 && ((i > 0 && group(i) === group(i - 1)) || y - last < 13)) continue;
      context.fillText(this.fit(context, label, labels - 8), labels - 6, y);
      last = y;
    }
    const columns = heat.columns.length, ticks = Math.max(2, Math.min(columns, Math.floor((width - labels) / 110)));
    for (let t = 0; t < ticks; t++) {
      const column = Math.round((t * (columns - 1)) / Math.max(1, ticks - 1)), x = labels + ((column + 0.5) * (width - labels)) / columns;
      context.textAlign = t === 0 ? "left" : t === ticks - 1 ? "right" : "center";
      context.fillText(heat.columns[column][0].toLocaleString("en"), t === 0 ? labels : t === ticks - 1 ? width : x, cell * rows.length + 12);
    }
    context.textAlign = "right";
    context.fillText("step", labels - 6, cell * rows.length + 12);
  }

  /** Without the components that all modules in layers share. */
  short(name) {
    return name.replace(/^(?:[A-Za-z_]+\.)+(?=\d+\.)/, "").replace(/^model\./, "");
  }

  fit(context, text, width) {
    if (context.measureText(text).width <= width) return text;
    while (text.length > 2 && context.measureText(`…${text}`).width > width) text = text.slice(1);
    return `…${text}`;
  }

  drawScale(ratio) {
    this.scale.width = 160 * ratio;
    this.scale.height = 14 * ratio;
    const context = this.scale.getContext("2d"), image = context.createImageData(this.scale.width, this.scale.height);
    this.fill(image, ratio, (x) => ((x / image.width) * 2 - 1) * this.limit);
    context.putImageData(image, 0, 0);
    this.limitText[0].textContent = `−${show(this.limit)} or less, hatched`;
    this.limitText[1].textContent = `+${show(this.limit)} or more`;
  }

  drawNumbers() {
    const columns = this.heat.columns.length, wanted = Math.min(columns, innerWidth < 700 ? 4 : 10);
    const bounds = Array.from({ length: wanted + 1 }, (_, i) => Math.round((i * columns) / wanted));
    const head = htmlElement("tr"), body = [];
    htmlElement("th", { textContent: "steps" }, head);
    for (let i = 0; i < wanted; i++)
      htmlElement("th", { className: "n", textContent: `${this.heat.columns[bounds[i]][0]}–${this.heat.columns[bounds[i + 1] - 1][1]}` }, head);
    for (const row of this.rows) {
      const line = htmlElement("tr");
      htmlElement("th", { className: "first", textContent: this.short(this.heat.modules[row]), title: this.heat.modules[row] }, line);
      for (let i = 0; i < wanted; i++) {
        let sum = 0, count = 0;
        for (let column = bounds[i]; column < bounds[i + 1]; column++) {
          const value = this.cosine(row, column);
          if (value !== null) { sum += value; count++; }
        }
        const mean = count ? sum / count : null;
        htmlElement("td", { textContent: mean === null ? "–" : (mean < 0 ? "−" : "+") + Math.abs(mean).toFixed(3) }, line);
      }
      body.push(line);
    }
    this.table.replaceChildren(htmlElement("thead"), htmlElement("tbody"));
    this.table.tHead.append(head);
    this.table.tBodies[0].append(...body);
  }

  point(event) {
    const place = this.canvas.getBoundingClientRect();
    const x = event.clientX - place.left - this.labels, y = event.clientY - place.top;
    const column = Math.floor((x * this.heat.columns.length) / (place.width - this.labels)), i = Math.floor(y / this.cell);
    if (column < 0 || column >= this.heat.columns.length || i < 0 || i >= this.rows.length) return hideTip();
    const row = this.rows[i], [first, last] = this.heat.columns[column], value = this.cosine(row, column);
    const shown = value === null ? "not measured" : `cosine ${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
    showTip([`${this.heat.modules[row]} (${this.heat.kinds[row]})`, first === last ? `step ${first}` : `steps ${first} to ${last}, mean`, shown], event);
  }
}
