// Share of the injections found, by SNR or another parameter.
/** @import { EfficiencyAnswer, EfficiencyBinAnswer, Paths } from "../openapi.d.ts" */
/** @typedef {NonNullable<Paths["/v1/runs/{run_id}/efficiency"]["parameters"]["by"]>} Parameter */
import { el, linear, message, numbered, plot, xAxis, yAxis } from "./draw.js";
import { number, percent } from "./units.js";

/** @param {EfficiencyBinAnswer} bin */
export const binName = ({ low_edge: low, high_edge: high }) =>
  high === null ? `${number(low)} and more` : `${number(low)} – ${number(high)}`;

/**
 * Bins with injections, which alone have an efficiency.
 * @param {EfficiencyAnswer} answer
 */
export const filledBins = ({ bins }) =>
  bins.flatMap((bin) => bin.efficiency === null ? [] : [{ ...bin, efficiency: bin.efficiency }]);

/** @type {Record<Parameter, string>} */
const NAMES = {
  snr: "Network SNR",
  distance: "Luminosity distance",
  redshift: "Redshift",
  mass_1: "Heavier mass",
  mass_2: "Lighter mass",
  chirp_mass: "Chirp mass",
  total_mass: "Total mass",
};

/**
 * Whether a name is that of a parameter that efficiency may be asked for by.
 * @param {string} name
 * @returns {name is Parameter}
 */
export const isParameter = (name) => Object.hasOwn(NAMES, name);

/**
 * @param {HTMLElement} host
 * @param {EfficiencyAnswer} answer
 */
export function drawEfficiency(host, answer) {
  const bins = filledBins(answer);
  if (!bins.length) {
    message(host, "No injections in this run.");
    return;
  }
  /** @param {"found" | "injections"} name */
  const sum = (name) => bins.reduce((total, bin) => total + bin[name], 0);
  const name = isParameter(answer.by) ? NAMES[answer.by] : answer.by;
  const title = name + (answer.unit && `, ${answer.unit}`);
  const height = host.clientWidth < 500 ? 190 : 215;
  const found = `${sum("found")} of ${sum("injections")} injections found`;
  const margin = { left: 46, right: 14, top: 30, bottom: 44 };
  const box = plot(host, height, margin, `Efficiency against ${title}: ${found}`);
  /**
   * An open last bin is drawn half as wide again as its lower edge.
   * @param {EfficiencyBinAnswer} bin
   */
  const edge = (bin) => bin.high_edge ?? bin.low_edge * 1.5;
  const x = linear([bins[0].low_edge, edge(bins[bins.length - 1])], [box.left, box.right]);
  const y = linear([0, 1], [box.bottom, box.top + 6]);
  const marks = [];
  for (const value of new Set(bins.flatMap((bin) => [bin.low_edge, edge(bin)]))) {
    if (!marks.length || x(value) - x(marks[marks.length - 1]) > 26) marks.push(value);
  }
  box.svg.append(
    xAxis(box, x, numbered(marks), title),
    yAxis(
      box,
      y,
      [0, 0.25, 0.5, 0.75, 1].map((share) => [share, percent(share)]),
      "Efficiency, with 68 % interval",
    ),
  );
  for (const bin of bins) {
    const [from, to] = [x(bin.low_edge), x(edge(bin))];
    const [cx, cy] = [(from + to) / 2, y(bin.efficiency)];
    const interval = `M${from + 1} ${cy}H${to - 1}M${cx} ${y(bin.low)}V${y(bin.high)}`;
    box.svg.append(el(
      "g",
      { class: "bin" },
      el("title", {}, `${title} ${binName(bin)}: ${bin.found} of ${bin.injections}`),
      el("path", { class: "interval", d: interval }),
      el("circle", { class: "point", cx, cy, r: 5 }),
    ));
  }
  host.replaceChildren(box.svg);
}
