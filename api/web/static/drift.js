// The newest events against background: how many are at least as loud, at some statistics.
import { el, linear, log, message, path, plot, ticks, xAxis, yAxis } from "./draw.js";
import { fixed, number } from "./units.js";

const FLOOR = 0.5; // where none is drawn: a logarithm has no zero
const NORMAL95 = 1.96;

export function drawDrift(host, answer) {
  const points = answer?.livetime ? answer.points : [];
  if (points.length < 2) return message(host, "Needs background with events, and zero-lag livetime.");
  const box = plot(host, 190, { left: 52, right: 14, top: 24, bottom: 44 },
    `Events at least as loud, the newest and those expected: ${points.map((p) =>
      `${fixed(p.statistic)}: ${p.observed} of ${number(p.expected)}`).join(", ")}`);
  // About where 95 % of Poisson numbers lie.
  const edge = (p, sign) => Math.max(FLOOR, p.expected + sign * NORMAL95 * Math.sqrt(p.expected));
  const x = linear([points[0].statistic, points.at(-1).statistic], [box.left + 8, box.right - 8]);
  const highest = Math.max(...points.map((p) => Math.max(p.observed, edge(p, 1))));
  const y = log([FLOOR, highest * 1.3], [box.bottom, box.top]);
  const decades = [1, 10, 100, 1e3, 1e4, 1e5].filter((value) => value < highest * 1.3);
  const marks = ticks(points[0].statistic, points.at(-1).statistic, (box.right - box.left) / 70);
  const along = (value) => points.map((p) => [x(p.statistic), y(Math.max(FLOOR, value(p)))]);
  const band = [...along((p) => edge(p, 1)), ...along((p) => edge(p, -1)).reverse()];
  box.svg.append(
    xAxis(box, x, marks.map((v) => [v, number(v)]), "Detection statistic"),
    yAxis(box, y, decades.map((v) => [v, number(v)]), "Events at least as loud"),
    el("path", { class: "band", d: path(band) + "Z" }),
    el("path", { class: "background series", d: path(along((p) => p.expected)) }),
  );
  for (const point of points) {
    const text = `${point.observed} events of at least ${fixed(point.statistic)}, ${number(point.expected)} expected (p = ${number(point.p_value)})`;
    box.svg.append(el("g", { class: "mark" }, el("title", {}, text), el("circle", {
      class: "newest", cx: x(point.statistic), cy: y(Math.max(FLOOR, point.observed)), r: 4.5,
    })));
  }
  host.replaceChildren(box.svg);
}
