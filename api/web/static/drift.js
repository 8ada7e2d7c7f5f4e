// The newest events against background: how many are at least as loud, at some statistics.
/** @import { DriftAnswer, DriftPointAnswer } from "../openapi.d.ts" */
/** @import { Pair } from "./draw.js" */
import { el, linear, log, message, numbered, path, plot, ticks, xAxis, yAxis } from "./draw.js";
import { fixed, number } from "./units.js";

const FLOOR = 0.5; // where zero is drawn: it has no logarithm
const NORMAL95 = 1.96;

/**
 * @param {HTMLElement} host
 * @param {DriftAnswer | null} answer
 */
export function drawDrift(host, answer) {
  const points = answer?.livetime ? answer.points : [];
  if (points.length < 2) {
    message(host, "Needs background with events, and zero-lag livetime.");
    return;
  }
  const counts = points.map((p) => `${fixed(p.statistic)}: ${p.observed} of ${number(p.expected)}`);
  const margin = { left: 52, right: 14, top: 24, bottom: 44 };
  const label = "Events at least as loud, the newest and those expected: " + counts.join(", ");
  const box = plot(host, 190, margin, label);
  /**
   * Ends of the interval that holds about 95 % of Poisson numbers.
   * @param {DriftPointAnswer} p
   * @param {1 | -1} sign
   */
  const edge = (p, sign) => Math.max(FLOOR, p.expected + sign * NORMAL95 * Math.sqrt(p.expected));
  const [first, last] = [points[0].statistic, points[points.length - 1].statistic];
  const x = linear([first, last], [box.left + 8, box.right - 8]);
  const highest = Math.max(...points.map((p) => Math.max(p.observed, edge(p, 1))));
  const y = log([FLOOR, highest * 1.3], [box.bottom, box.top]);
  const decades = [1, 10, 100, 1e3, 1e4, 1e5].filter((value) => value < highest * 1.3);
  const marks = ticks(first, last, (box.right - box.left) / 70);
  /**
   * @param {(p: DriftPointAnswer) => number} value
   * @returns {Pair[]}
   */
  const along = (value) => points.map((p) => [x(p.statistic), y(Math.max(FLOOR, value(p)))]);
  const band = [...along((p) => edge(p, 1)), ...along((p) => edge(p, -1)).reverse()];
  box.svg.append(
    xAxis(box, x, numbered(marks), "Detection statistic"),
    yAxis(box, y, numbered(decades), "Events at least as loud"),
    el("path", { class: "band", d: path(band) + "Z" }),
    el("path", { class: "background series", d: path(along((p) => p.expected)) }),
  );
  for (const { statistic, observed, expected, p_value: p } of points) {
    const text = `${observed} events of at least ${fixed(statistic)}, ` +
      `${number(expected)} expected (p = ${number(p)})`;
    const place = { cx: x(statistic), cy: y(Math.max(FLOOR, observed)) };
    const circle = el("circle", { class: "newest", ...place, r: 4.5 });
    box.svg.append(el("g", { class: "mark" }, el("title", {}, text), circle));
  }
  host.replaceChildren(box.svg);
}
