// Injections found and missed, in the plane of chirp mass and distance.
/** @import { InjectionsAnswer } from "../openapi.d.ts" */
import { el, linear, log, message, numbered, plot, ticks, triangle, xAxis, yAxis } from "./draw.js";
import { number } from "./units.js";

const DECADE = [1, 2, 5];

/**
 * @param {number} first
 * @param {number} second
 */
const chirpMass = (first, second) => (first * second) ** 0.6 / (first + second) ** 0.2;

/**
 * Those that can be drawn: with both masses and a distance.
 * @param {InjectionsAnswer} answer
 */
export function placed(answer) {
  return [...answer.missed, ...answer.found].flatMap((injection) => {
    const { mass_1: first, mass_2: second, distance } = injection.parameters;
    if (!(first > 0 && second > 0 && distance > 0)) return [];
    return [{ ...injection, chirp: chirpMass(first, second), distance }];
  });
}

/**
 * @param {HTMLElement} host
 * @param {InjectionsAnswer} answer
 */
export function drawPlane(host, answer) {
  const points = placed(answer);
  if (!points.length) {
    message(host, "No injections with masses and a distance.");
    return;
  }
  const found = points.filter(({ reason }) => reason === "found").length;
  const label = `Chirp mass and distance of ${points.length} injections, ${found} of them found`;
  const margin = { left: 58, right: 14, top: 26, bottom: 44 };
  const box = plot(host, host.clientWidth < 500 ? 260 : 330, margin, label);
  const masses = points.map(({ chirp }) => chirp);
  const distances = points.map(({ distance }) => distance);
  const [left, right] = [Math.min(...masses), Math.max(...masses)];
  const room = (right - left || 1) * 0.04;
  const [low, high] = [Math.min(...distances) / 1.15, Math.max(...distances) * 1.15];
  const x = linear([left - room, right + room], [box.left, box.right]);
  const y = log([low, high], [box.bottom, box.top]);
  // Even steps give more marks within a decade.
  const marks = high < 10 * low ? ticks(low, high, 5) : decades(low, high);
  const massMarks = ticks(left, right, (box.right - box.left) / 70);
  box.svg.append(
    xAxis(box, x, numbered(massMarks), "Chirp mass, solar masses (detector frame)"),
    yAxis(box, y, numbered(marks), "Luminosity distance, Mpc"),
  );
  // Those that were found lie over the missed ones.
  for (const { chirp, distance, snr, reason } of points) {
    const [cx, cy] = [x(chirp), y(distance)];
    const text = `Network SNR ${number(snr)}, chirp mass ${number(chirp)}, ` +
      `${number(distance)} Mpc: ${reason.replace("_", " ")}`;
    const title = el("title", {}, text);
    box.svg.append(
      reason === "found"
        ? el("circle", { class: "found", cx, cy, r: 3.5 }, title)
        : el("path", { class: "missed", d: triangle(cx, cy - 3, 4) }, title),
    );
  }
  host.replaceChildren(box.svg);
}

/**
 * 1, 2 and 5 of each decade between two values.
 * @param {number} low
 * @param {number} high
 */
function decades(low, high) {
  const values = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    values.push(...DECADE.map((digit) => digit * 10 ** power));
  }
  return values.filter((value) => value > low && value < high);
}
