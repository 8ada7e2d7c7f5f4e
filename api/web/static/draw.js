// A little SVG: elements, scales, ticks, axes.
import { fixed, number } from "./units.js";

/**
 * @typedef {[number, number]} Pair Two ends, or the two coordinates of a point
 * @typedef {(value: number) => number} Scale Places on the page, px, of a quantity's values
 * @typedef {[value: number, text: string]} Mark A tick and its label
 * @typedef {{ left: number, right: number, top: number, bottom: number }} Sides
 * @typedef {Sides & { svg: SVGSVGElement }} Box A plot, and the sides of what its axes enclose, px
 */

/**
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

/**
 * @param {Pair} domain
 * @param {Pair} range
 */
export function linear([d0, d1], [r0, r1]) {
  /** @type {Scale} */
  const scale = (value) => r0 + ((value - d0) / (d1 - d0)) * (r1 - r0);
  /** @type {Scale} */
  const invert = (place) => d0 + ((place - r0) / (r1 - r0)) * (d1 - d0);
  return Object.assign(scale, { invert });
}

/**
 * @param {Pair} domain
 * @param {Pair} range
 * @returns {Scale}
 */
export function log([low, high], range) {
  const scale = linear([Math.log(low), Math.log(high)], range);
  return (value) => scale(Math.log(value));
}

/**
 * Round numbers between two values, about `count` of them.
 * @param {number} low
 * @param {number} high
 * @param {number} count
 */
export function ticks(low, high, count, steps = [1, 2, 5, 10]) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * (steps.find((factor) => factor * power >= rough * 0.999) ?? 10);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    values.push(+(i * step).toPrecision(12));
  }
  return values;
}

/**
 * Marks at values, with three digits.
 * @param {number[]} values
 * @returns {Mark[]}
 */
export const numbered = (values) => values.map((value) => [value, number(value)]);

/**
 * Marks at even distances, with as many decimals as their distance asks for.
 * @param {number[]} values
 * @returns {Mark[]}
 */
export function labelled(values) {
  const step = values.length > 1 ? values[1] - values[0] : 1;
  const digits = Math.max(0, ...[step, values[0] ?? 0].map((value) => decimals(value)));
  return values.map((value) => [value, fixed(value, digits)]);
}

/** @param {number} value */
function decimals(value) {
  for (let digits = 0; digits < 6; digits++) {
    if (Math.abs(value - +value.toFixed(digits)) < 1e-9) return digits;
  }
  return 6;
}

/**
 * An empty plot of the width at hand.
 * @param {HTMLElement} host
 * @param {number} height
 * @param {Sides} margin
 * @param {string} label
 * @returns {Box}
 */
export function plot(host, height, margin, label) {
  const width = Math.max(200, host.clientWidth);
  const viewBox = `0 0 ${width} ${height}`;
  return {
    svg: el("svg", { viewBox, height, role: "img", "aria-label": label }),
    left: margin.left,
    right: width - margin.right,
    top: margin.top,
    bottom: height - margin.bottom,
  };
}

/**
 * @param {Box} box
 * @param {Scale} scale
 * @param {Mark[]} marks
 * @param {string} title
 */
export function xAxis(box, scale, marks, title) {
  const { left, right, top, bottom } = box;
  const group = el("g");
  group.append(el("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
  for (const [value, text] of marks) {
    const x = scale(value);
    group.append(
      el("line", { class: "grid", x1: x, x2: x, y1: top, y2: bottom }),
      el("text", { x, y: bottom + 17, "text-anchor": "middle" }, text),
    );
  }
  const place = { x: (left + right) / 2, y: bottom + 37, "text-anchor": "middle" };
  group.append(el("text", { class: "title", ...place }, title));
  return group;
}

/**
 * @param {Box} box
 * @param {Scale} scale
 * @param {Mark[]} marks
 * @param {string} title
 */
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

/** @param {Pair[]} points */
export function path(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

/**
 * @param {number} x
 * @param {number} y
 * @param {number} r
 */
export const diamond = (x, y, r) => `M${x} ${y - r}l${r} ${r}l${-r} ${r}l${-r} ${-r}Z`;

/**
 * @param {number} x
 * @param {number} y
 * @param {number} r
 */
export const triangle = (x, y, r) => `M${x - r} ${y - r}h${2 * r}l${-r} ${1.8 * r}Z`;

/**
 * Draw again when the width changes.
 * @param {HTMLElement} host
 * @param {() => void} draw
 */
export function onResize(host, draw) {
  let width = host.clientWidth;
  new ResizeObserver(() => {
    if (host.clientWidth !== width) {
      width = host.clientWidth;
      draw();
    }
  }).observe(host);
}

/**
 * Show a text in place of a plot.
 * @param {HTMLElement} host
 * @param {string} text
 */
export function message(host, text) {
  const box = plot(host, 150, { left: 0, right: 0, top: 0, bottom: 0 }, text);
  /** @type {string[]} */
  const lines = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last && (last.length + word.length) * 7.2 < box.right - 20) {
      lines[lines.length - 1] += " " + word;
    } else lines.push(word);
  }
  lines.forEach((line, i) => {
    const y = 75 + 20 * (i - (lines.length - 1) / 2);
    const place = { x: box.right / 2, y, "text-anchor": "middle" };
    box.svg.append(el("text", { class: "empty", ...place }, line));
  });
  host.replaceChildren(box.svg);
}
