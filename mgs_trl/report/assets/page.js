"use strict";
// Puts charts and heat maps where the page has places for them; draws what is visible, when it becomes visible.

const data = JSON.parse(document.getElementById("data").textContent);
const smoothing = document.getElementById("smoothing");
const drawn = new Map(); // place -> chart or heat map

function make(place) {
  const { run, group, index } = place.dataset;
  if (place.classList.contains("heat")) return new HeatMap(place, data.runs[run].heat);
  const charts = run === undefined ? data.comparison : data.runs[run].charts[group];
  return new LineChart(place, charts[index], run === undefined ? [] : data.runs[run].stages);
}

function draw(place) {
  if (!place.offsetParent) return;
  if (!drawn.has(place)) drawn.set(place, make(place));
  drawn.get(place).draw(smoothing.value);
}

const watcher = new IntersectionObserver(
  (entries) => entries.forEach((entry) => entry.isIntersecting && !drawn.has(entry.target) && draw(entry.target)),
  { rootMargin: "300px" },
);
const places = document.querySelectorAll("figure.chart, .heat");
places.forEach((place) => watcher.observe(place));

function redraw() {
  drawn.forEach((_, place) => draw(place));
}

let width = innerWidth, pending = 0;
addEventListener("resize", () => {
  if (innerWidth === width) return; // a phone's address bar
  width = innerWidth;
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(redraw);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", () => places.forEach(draw));
addEventListener("scroll", hideTip, { passive: true });
smoothing.addEventListener("change", redraw);

const tabs = document.querySelectorAll(".tabs button");
tabs.forEach((tab, i) =>
  tab.addEventListener("click", () => {
    tabs.forEach((other, j) => other.setAttribute("aria-selected", String(i === j)));
    document.querySelectorAll("section.run").forEach((section, j) => (section.hidden = i !== j));
    redraw();
  }),
);
document.querySelectorAll("nav.bar a").forEach((link) =>
  link.addEventListener("click", (event) => {
    const target = [...document.querySelectorAll(`[data-part="${link.dataset.to}"]`)].find((part) => part.offsetParent);
    if (target) target.scrollIntoView();
    event.preventDefault();
  }),
);

document.querySelectorAll(".filter").forEach((filter) => {
  const rows = filter.parentElement.querySelectorAll("tbody tr[data-kind]");
  const kind = filter.querySelector("[name=kind]"), told = filter.querySelector("[name=told]");
  const apply = () =>
    rows.forEach((row) => {
      row.hidden = (kind.value && row.dataset.kind !== kind.value) || (told.checked && !row.dataset.told);
    });
  kind.addEventListener("change", apply);
  told.addEventListener("change", apply);
});
document.documentElement.dataset.ready = "yes";
