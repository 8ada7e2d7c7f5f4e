// Share of the injections found, by SNR or another parameter.
import { el, linear, message, plot, xAxis, yAxis } from "./draw.js";
import { number, percent } from "./units.js";

export const binName = ({ low_edge: low, high_edge: high }) =>
  high === null ? `${number(low)} and more` : `${number(low)} – ${number(high)}`;

const NAMES = {
  snr: "Network SNR", distance: "Luminosity distance", redshift: "Redshift", mass_1: "Heavier mass",
  mass_2: "Lighter mass", chirp_mass: "Chirp mass", total_mass: "Total mass",
};

export function drawEfficiency(host, answer) {
  const bins = answer.bins.filter((bin) => bin.injections);
  if (!bins.length) return message(host, "No injections in this run.");
  const sum = (name) => bins.reduce((total, bin) => total + bin[name], 0);
  const title = NAMES[answer.by] + (answer.unit && `, ${answer.unit}`);
  const narrow = host.clientWidth < 500;
  const box = plot(host, narrow ? 190 : 215, { left: 46, right: 14, top: 30, bottom: 44 },
    `Efficiency against ${title}: ${sum("found")} of ${sum("injections")} injections found`);
  // An open last bin is drawn half as wide again as its lower edge.
  const edge = (bin) => bin.high_edge ?? bin.low_edge * 1.5;
  const x = linear([bins[0].low_edge, edge(bins.at(-1))], [box.left, box.right]);
  const y = linear([0, 1], [box.bottom, box.top + 6]);
  const edges = [...new Set(bins.flatMap((bin) => [bin.low_edge, edge(bin)]))];
  const marks = [];
  for (const value of edges) {
    if (!marks.length || x(value) - x(marks.at(-1)) > 26) marks.push(value);
  }
  box.svg.append(
    xAxis(box, x, marks.map((v) => [v, number(v)]), title),
    yAxis(box, y, [0, 0.25, 0.5, 0.75, 1].map((v) => [v, percent(v)]), "Efficiency, with 68 % interval"),
  );
  for (const bin of bins) {
    const [from, to] = [x(bin.low_edge), x(edge(bin))];
    const [cx, cy] = [(from + to) / 2, y(bin.efficiency)];
    box.svg.append(el("g", { class: "bin" },
      el("title", {}, `${title} ${binName(bin)}: ${bin.found} of ${bin.injections}`),
      el("path", { class: "interval", d: `M${from + 1} ${cy}H${to - 1}M${cx} ${y(bin.low)}V${y(bin.high)}` }),
      el("circle", { class: "point", cx, cy, r: 5 })));
  }
  host.replaceChildren(box.svg);
}
