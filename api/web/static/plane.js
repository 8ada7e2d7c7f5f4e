// Injections found and missed, in the plane of chirp mass and distance.
import { el, linear, log, message, plot, ticks, triangle, xAxis, yAxis } from "./draw.js";
import { number } from "./units.js";

const DECADE = [1, 2, 5];

export function chirpMass({ mass_1: first, mass_2: second }) {
  return (first * second) ** 0.6 / (first + second) ** 0.2;
}

// Those that can be drawn: with both masses and a distance.
export function placed(answer) {
  const known = ({ parameters: p }) => p.mass_1 > 0 && p.mass_2 > 0 && p.distance > 0;
  return [...answer.missed, ...answer.found].filter(known).map((one) => ({
    ...one, chirp: chirpMass(one.parameters), distance: one.parameters.distance,
  }));
}

export function drawPlane(host, answer) {
  const points = placed(answer);
  if (!points.length) return message(host, "No injections with masses and a distance.");
  const found = points.filter(({ reason }) => reason === "found").length;
  const box = plot(host, host.clientWidth < 500 ? 260 : 330, { left: 58, right: 14, top: 26, bottom: 44 },
    `Chirp mass and distance of ${points.length} injections, ${found} of them found`);
  const [masses, distances] = ["chirp", "distance"].map((name) => points.map((one) => one[name]));
  const [left, right] = [Math.min(...masses), Math.max(...masses)];
  const room = (right - left || 1) * 0.04;
  const [low, high] = [Math.min(...distances) / 1.15, Math.max(...distances) * 1.15];
  const x = linear([left - room, right + room], [box.left, box.right]);
  const y = log([low, high], [box.bottom, box.top]);
  // Within a decade even steps tell more.
  const marks = high < 10 * low ? ticks(low, high, 5).map((v) => [v, number(v)]) : [];
  for (let power = Math.floor(Math.log10(low)); high >= 10 * low && power <= Math.log10(high); power++) {
    for (const digit of DECADE) {
      const value = digit * 10 ** power;
      if (value > low && value < high) marks.push([value, number(value)]);
    }
  }
  box.svg.append(
    xAxis(box, x, ticks(left, right, (box.right - box.left) / 70).map((v) => [v, number(v)]), "Chirp mass, solar masses (detector frame)"),
    yAxis(box, y, marks, "Luminosity distance, Mpc"),
  );
  // Those that were found lie over the missed ones.
  for (const one of points) {
    const [cx, cy] = [x(one.chirp), y(one.distance)];
    const title = el("title", {}, `Network SNR ${number(one.snr)}, chirp mass ${number(one.chirp)}, ` +
      `${number(one.distance)} Mpc: ${one.reason.replace("_", " ")}`);
    box.svg.append(one.reason === "found"
      ? el("circle", { class: "found", cx, cy, r: 3.5 }, title)
      : el("path", { class: "missed", d: triangle(cx, cy - 3, 4) }, title));
  }
  host.replaceChildren(box.svg);
}
