"""The page of error cases: style, filters and drawings; ``error_page`` fills in the data."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Misses and false alarms</title>
<style>
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;color:#222;
max-width:60rem;margin:0 auto;padding:1rem 1rem 4rem}
h1{font-size:1.6rem;margin:.5rem 0}
h2{font-size:1.2rem;margin:1.6rem 0 .4rem}
form{display:flex;flex-wrap:wrap;gap:.5rem 1rem;background:#fff;padding:.6rem 0;
border-bottom:1px solid #ddd;z-index:1}
@media (min-width:50rem){form{position:sticky;top:0}}
label{font-size:.85rem;color:#555;display:flex;flex-direction:column;max-width:100%}
label.check{flex-direction:row;align-items:center;gap:.4rem}
select{font:inherit;max-width:11rem;min-height:2.2rem}
article{border:1px solid #ddd;border-radius:6px;padding:.7rem .9rem;margin:1rem 0}
article h3{font-size:1.05rem;margin:0 0 .2rem;overflow-wrap:anywhere}
article p{margin:.2rem 0;overflow-wrap:anywhere}
.small{color:#555;font-size:.88rem}
.miss h3 b{color:#b3400a}
.suspected{border-left:5px solid #E69F00}
audio{width:100%;margin:.4rem 0}
canvas{width:100%;display:block}
.problem{background:#fdf1ea;padding:.4rem .6rem}
</style>
</head>
<body>
<h1>Misses and false alarms</h1>
<p id="summary">{{summary}}</p>
<h2>Where most errors are</h2>
<div id="groups">{{groups}}</div>
<h2>Cases</h2>
<form id="filters"></form>
<p class="small" id="count" aria-live="polite"></p>
<div id="cases"></div>
<script type="application/json" id="data">{{data}}</script>
<script>
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
const OTHERS = "#888";
const FILTERS = [["keyword", "keyword"], ["kind", "kind"], ["speaker", "speaker"],
  ["condition", "condition"], ["near", "near miss of"]];
const form = document.getElementById("filters");
const list = document.getElementById("cases");

function element(name, parent, text, className) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  parent.append(made);
  return made;
}

for (const [field, title] of FILTERS) {
  const values = [...new Set(DATA.cases.map((c) => c[field]).filter(Boolean))].sort();
  if (!values.length) continue;
  const select = element("select", element("label", form, title));
  select.name = field;
  element("option", select, "all").value = "";
  for (const value of values) element("option", select, value).value = value;
}
const label = element("label", form, "", "check");
const box = element("input", label);
box.type = "checkbox";
box.name = "suspected";
element("span", label, "suspected labels only");

function figure(value) { return value === null ? "-" : value.toPrecision(3); }

function build(c) {
  const card = element("article", list, "", c.kind.replace(" ", "-"));
  if (c.suspected) card.classList.add("suspected");
  const title = element("h3", card);
  element("b", title, c.kind);
  title.append(" of " + c.keyword + ": " + (c.text || "(no words)"));
  let text = DATA.models[0] + ": confidence " + figure(c.confidence) + ", threshold " +
    figure(c.threshold);
  if (c.teacher_threshold !== null) {
    text += "; " + (DATA.models[1] || "teacher") + ": " + figure(c.teacher_confidence) +
      ", threshold " + figure(c.teacher_threshold);
  }
  element("p", card, text);
  const traits = [c.key, c.duration + " s"];
  if (c.speaker) traits.push("speaker " + c.speaker);
  if (c.condition) traits.push("condition " + c.condition);
  if (c.near) traits.push("near miss of " + c.near);
  if (c.suspected) traits.push("suspected label");
  element("p", card, traits.join(" | "), "small");
  if (c.problem) { element("p", card, c.problem, "problem"); return card; }
  const audio = element("audio", card);
  audio.controls = true;
  audio.preload = "none";
  audio.src = c.audio;
  const canvas = element("canvas", card);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Waveform, log-mel energies, posteriors and confidence");
  canvas.drawCase = () => draw(canvas, c);
  watcher.observe(canvas);
  return card;
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) entry.target.drawCase();
}, {rootMargin: "300px"});

function draw(canvas, c) {
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  if (canvas.drawnWidth === width || !width) return;
  canvas.drawnWidth = width;
  const heights = {wave: 50, fbank: 90, row: 64, gap: 20};
  const rows = 2 * c.traces.length;
  const height = heights.wave + heights.fbank + rows * heights.row + (rows + 2) * heights.gap;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.height = height + "px";
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px system-ui, sans-serif";
  const x = (time) => width * (time - c.begin) / Math.max(c.end - c.begin, 0.001);
  pen.fillStyle = "#fff3d6";
  pen.fillRect(x(c.event[0]), 0, Math.max(x(c.event[1]) - x(c.event[0]), 1), height);
  let top = heading(pen, 0, "waveform and log-mel energies, " + c.begin.toFixed(1) + " to " +
    c.end.toFixed(1) + " s; shaded: the event with this confidence", width);
  pen.fillStyle = "#555";
  c.wave.forEach(([low, high], i) => {
    const step = width / c.wave.length, middle = top + heights.wave / 2;
    pen.fillRect(i * step, middle - high * heights.wave / 200, Math.max(step - 0.3, 0.6),
      Math.max((high - low) * heights.wave / 200, 0.7));
  });
  top += heights.wave + 4;
  drawFbank(pen, c.fbank, top, width, heights.fbank);
  top += heights.fbank;
  for (const trace of c.traces) {
    top = heading(pen, top, trace.model + ": posteriors of tokens", width);
    const colours = trace.tokens.map((token, i) =>
      token.of_keyword ? COLOURS[i % COLOURS.length] : OTHERS);
    trace.tokens.forEach((token, i) =>
      curve(pen, token.values.map((v) => v / 100), trace, x, top, heights.row, colours[i]));
    let right = width;
    if (trace.tokens.some((token) => !token.of_keyword))
      right = legend(pen, right, top - 6, "others", OTHERS);
    for (let i = trace.tokens.length - 1; i >= 0; i--) {
      const token = trace.tokens[i];
      if (token.of_keyword) right = legend(pen, right, top - 6, token.token, colours[i]);
    }
    top += heights.row;
    const isStudent = trace === c.traces[0];
    const threshold = isStudent ? c.threshold : c.teacher_threshold;
    top = heading(pen, top, trace.model + ": confidence; dashed: threshold", width);
    const most = Math.max(...trace.confidence, threshold || 0, 0.001);
    curve(pen, trace.confidence.map((v) => v / most), trace, x, top, heights.row, "#0072B2");
    if (threshold !== null) {
      pen.strokeStyle = "#D55E00";
      pen.setLineDash([5, 3]);
      pen.beginPath();
      const level = top + heights.row * (1 - threshold / most);
      pen.moveTo(0, level);
      pen.lineTo(width, level);
      pen.stroke();
      pen.setLineDash([]);
    }
    top += heights.row;
  }
}

function heading(pen, top, text, width) {
  pen.fillStyle = "#555";
  pen.fillText(text, 0, top + 13, width);
  return top + 20;
}

function legend(pen, right, y, text, colour) {
  const left = right - pen.measureText(text).width - 8;
  pen.fillStyle = colour;
  pen.fillText(text, left, y);
  return left;
}

function curve(pen, values, trace, x, top, height, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 1.4;
  pen.beginPath();
  values.forEach((value, i) => {
    const px = x(trace.offset + (i + 0.5) * trace.hop), py = top + height * (1 - value);
    if (i) pen.lineTo(px, py); else pen.moveTo(px, py);
  });
  pen.stroke();
  pen.strokeStyle = "#ddd";
  pen.lineWidth = 1;
  pen.strokeRect(0.5, top + 0.5, pen.canvas.clientWidth - 1, height - 1);
}

function drawFbank(pen, f, top, width, height) {
  const bytes = Uint8Array.from(atob(f.levels), (letter) => letter.charCodeAt(0));
  const image = document.createElement("canvas");
  image.width = f.frames;
  image.height = f.bins;
  const paint = image.getContext("2d"), pixels = paint.createImageData(f.frames, f.bins);
  for (let t = 0; t < f.frames; t++) {
    for (let b = 0; b < f.bins; b++) {
      const level = bytes[t * f.bins + b], at = 4 * ((f.bins - 1 - b) * f.frames + t);
      pixels.data[at] = Math.min(255, 1.6 * level);
      pixels.data[at + 1] = Math.max(0, 1.4 * level - 90);
      pixels.data[at + 2] = 90 + 0.35 * level;
      pixels.data[at + 3] = 255;
    }
  }
  paint.putImageData(pixels, 0, 0);
  pen.drawImage(image, 0, top, width, height);
}

const cards = DATA.cases.map(build);
function filter() {
  let shown = 0;
  DATA.cases.forEach((c, i) => {
    let isShown = !form.elements.suspected.checked || c.suspected;
    for (const [field] of FILTERS) {
      const select = form.elements[field];
      if (select && select.value && c[field] !== select.value) isShown = false;
    }
    cards[i].hidden = !isShown;
    shown += isShown;
  });
  document.getElementById("count").textContent = shown + " of " + cards.length + " cases";
}
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("resize", () => {
  for (const canvas of document.querySelectorAll("canvas")) {
    const place = canvas.getBoundingClientRect();
    if (place.bottom > -300 && place.top < window.innerHeight + 300) canvas.drawCase();
  }
});
filter();
</script>
</body>
</html>
"""
