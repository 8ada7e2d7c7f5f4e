// A little SVG: elements, scales, ticks, axes.
import { fixed } from "./units.js";

export function el(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function linear([d0, d1], [r0, r1]) {
  const scale = (value) => r0 + ((value - d0) / (d1 - d0)) * (r1 - r0);
  scale.invert = (place) => d0 + ((place - r0) / (r1 - r0)) * (d1 - d0);
  return scale;
}

export function log(domain, range) {
  const scale = linear(domain.map(Math.log), range);
  return (value) => scale(Math.log(value));
}

// Round numbers between two values, about `count` of them.
export function ticks(low, high, count, steps = [1, 2, 5, 10]) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * steps.find((factor) => factor * power >= rough * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    values.push(+(i * step).toPrecision(12));
  }
  return values;
}

// The same with what is written at each: as many decimals as their distance asks for.
export function labelled(values) {
  const step = values.length > 1 ? values[1] - values[0] : 1;
  const digits = Math.max(0, ...[step, values[0] ?? 0].map((value) => decimals(value)));
  return values.map((value) => [value, fixed(value, digits)]);
}

function decimals(value) {
  for (let digits = 0; digits < 6; digits++) {
    if (Math.abs(value - +value.toFixed(digits)) < 1e-9) return digits;
  }
  return 6;
}

// An empty plot of the width at hand.
export function plot(host, height, margin, label) {
  const width = Math.max(200, host.clientWidth);
  const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
  return { svg, left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom };
}

export function xAxis(box, scale, marks, title, top = box.top) {
  const group = el("g");
  group.append(el("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  for (const [value, text] of marks) {
    const x = scale(value);
    group.append(
      el("line", { class: "grid", x1: x, x2: x, y1: top, y2: box.bottom }),
      el("text", { x, y: box.bottom + 17, "text-anchor": "middle" }, text),
    );
  }
  group.append(el("text", { class: "title", x: (box.left + box.right) / 2, y: box.bottom + 37, "text-anchor": "middle" }, title));
  return group;
}

export function yAxis(box, scale, marks, title) {
  const group = el("g");
  for (const [value, text] of marks) {
    const y = scale(value);
    group.append(
      el("line", { class: "grid", x1: box.left, x2: box.right, y1: y, y2: y }),
      el("text", { x: box.left - 7, y: y + 4, "text-anchor": "end" }, text),
    );
  }
  group.append(el("text", { class: "title", x: box.left, y: box.top - 8 }, title));
  return group;
}

export function path(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

export const diamond = (x, y, r = 6) => `M${x} ${y - r}l${r} ${r}l${-r} ${r}l${-r} ${-r}Z`;
export const triangle = (x, y, r = 5) => `M${x - r} ${y - r}h${2 * r}l${-r} ${1.8 * r}Z`;

// Draw again when the space changes.
export function onResize(host, draw) {
  let width = host.clientWidth;
  new ResizeObserver(() => {
    if (host.clientWidth !== width) {
      width = host.clientWidth;
      draw();
    }
  }).observe(host);
}

export function message(host, text) {
  const box = plot(host, 150, { left: 0, right: 0, top: 0, bottom: 0 }, text);
  const lines = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last && (last.length + word.length) * 7.2 < box.right - 20) lines[lines.length - 1] += " " + word;
    else lines.push(word);
  }
  lines.forEach((line, i) => box.svg.append(el("text", {
    class: "empty", x: box.right / 2, y: 75 + 20 * (i - (lines.length - 1) / 2), "text-anchor": "middle",
  }, line)));
  host.replaceChildren(box.svg);
}
