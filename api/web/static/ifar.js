// IFAR against statistic: background with its band, and zero-lag over it.
/** @import { Candidates, IfarAnswer } from "../openapi.d.ts" */
/** @import { Mark, Pair } from "./draw.js" */
/** @typedef {{ x: number, y: number, low: number, high: number }} Point */
import {
  diamond,
  el,
  linear,
  log,
  message,
  numbered,
  path,
  plot,
  ticks,
  xAxis,
  yAxis,
} from "./draw.js";
import { duration, fixed, number, YEAR } from "./units.js";

/** @type {Mark[]} */
const MARKS = [
  [1, "1 s"],
  [10, "10 s"],
  [60, "1 min"],
  [600, "10 min"],
  [3600, "1 h"],
  [6 * 3600, "6 h"],
  [86400, "1 d"],
  [7 * 86400, "1 wk"],
  [YEAR / 12, "1 mo"],
  [YEAR, "1 yr"],
  [10 * YEAR, "10 yr"],
  [100 * YEAR, "100 yr"],
  [1e3 * YEAR, "10³ yr"],
  [1e4 * YEAR, "10⁴ yr"],
  [1e5 * YEAR, "10⁵ yr"],
];

/**
 * @param {HTMLElement} host
 * @param {IfarAnswer | null} ifar
 * @param {Candidates} zeroLag
 */
export function drawIfar(host, ifar, zeroLag) {
  if (!ifar || !ifar.points.length) {
    message(host, "No background yet: an IFAR needs timeslides with events.");
    return;
  }
  /** @type {Point[]} */
  const points = ifar.points.map((point) => ({
    x: point.statistic,
    y: point.ifar_years * YEAR,
    low: point.ifar_years_low * YEAR,
    high: point.ifar_years_high === null ? Infinity : point.ifar_years_high * YEAR,
  }));
  const seen = zeroLag.candidates.map((candidate, i) => ({
    x: candidate.statistic,
    y: zeroLag.livetime / (i + 1),
    limit: candidate.saturated,
    far: candidate.far_per_year,
  }));
  const limit = ifar.livetime;
  const narrow = host.clientWidth < 500;
  const loudest = seen.length ? number(seen[0].x) : "none";
  const label = `Inverse false-alarm rate against statistic; ${ifar.events} background events in ` +
    `${duration(limit)}; the loudest of ${zeroLag.total} zero-lag events has a statistic of ` +
    loudest;
  const margin = { left: 52, right: 14, top: 24, bottom: 44 };
  const box = plot(host, narrow ? 270 : 430, margin, label);
  const low = Math.min(...points.map((p) => p.low), ...seen.map((p) => p.y));
  const xs = [...points, ...seen].map((p) => p.x);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const room = (right - left || 1) * 0.05;
  const x = linear([left - room / 2, right + room], [box.left, box.right]);
  const y = log([low * 0.85, limit * 6], [box.bottom, box.top]);
  const marks = MARKS.filter(([value]) => value > low * 0.85 && value < limit * 6);
  const statistics = ticks(left, right, (box.right - box.left) / 70);
  box.svg.append(
    xAxis(box, x, numbered(statistics), "Detection statistic"),
    yAxis(box, y, marks, narrow ? "IFAR" : "Inverse false-alarm rate (IFAR)"),
  );
  /** @param {number} value */
  const top = (value) => Math.max(box.top, y(value));
  /**
   * @param {(p: Point) => number} value
   * @returns {Pair[]}
   */
  const staircase = (value) =>
    points.flatMap((p, i) => [[x(points[Math.max(0, i - 1)].x), value(p)], [x(p.x), value(p)]]);
  const last = points[points.length - 1];
  /** @type {Pair[]} */
  const band = [
    ...staircase((p) => top(p.high)),
    [box.right, top(last.high)],
    [box.right, top(last.low)],
    ...staircase((p) => top(p.low)).reverse(),
  ];
  const limitText = `limit (dashed): ${duration(limit)}`;
  box.svg.append(
    el("path", { class: "band", d: path(band) + "Z" }),
    el("path", { class: "background series", d: path(staircase((p) => y(p.y))) }),
    el("line", { class: "limit", x1: x(last.x), x2: box.right, y1: y(limit), y2: y(limit) }),
    el("text", { x: box.right, y: box.top - 8, "text-anchor": "end" }, limitText),
  );
  if (seen.length > 1) {
    /** @type {Pair[]} */
    const steps = seen.flatMap((
      p,
      i,
    ) => [[x(p.x), y(seen[Math.max(0, i - 1)].y)], [x(p.x), y(p.y)]]);
    box.svg.append(el("path", { class: "zero-lag series steps", d: path(steps.slice(1)) }));
  }
  for (const [i, candidate] of seen.slice(0, 10).entries()) {
    // Asked for before the first background came.
    if (candidate.far === null) continue;
    const [cx, cy] = [x(candidate.x), y(YEAR / candidate.far)];
    const bound = candidate.limit ? "at least " : "";
    const title = `Candidate ${i + 1}, statistic ${fixed(candidate.x)}: ` +
      `IFAR ${bound}${duration(YEAR / candidate.far)}`;
    const mark = el("g", { class: "mark" }, el("title", {}, title));
    if (candidate.limit) {
      mark.append(el("path", { class: "arrow", d: `M${cx} ${cy}v-17m-4 5l4 -5l4 5` }));
    }
    mark.append(el("path", { class: "candidate", d: diamond(cx, cy, i < 3 ? 6 : 4.5) }));
    box.svg.append(mark);
  }
  host.replaceChildren(box.svg);
}
