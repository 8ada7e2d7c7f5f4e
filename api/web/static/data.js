// What the plots show as columns and rows, with units.
/**
 * @import { DriftAnswer, EfficiencyAnswer, IfarAnswer, InjectionsAnswer } from "../openapi.d.ts"
 */
/** @import { StreamPlot } from "./stream.js" */
import { placed } from "./plane.js";

/**
 * A table to download.
 * @typedef {object} Table
 * @property {string[]} columns
 * @property {(string | number | boolean | null | undefined)[][]} rows
 */

/** @type {Record<string, string>} */
const UNITS = { "Mpc": "_mpc", "solar masses": "_solar" };

/**
 * @param {IfarAnswer} ifar
 * @returns {Table}
 */
export function ifarTable({ points }) {
  const ifars = ["ifar_years", "ifar_years_low", "ifar_years_high"];
  return {
    columns: ["statistic", ...ifars, "count", "saturated"],
    rows: points.map((p) => [
      p.statistic,
      p.ifar_years,
      p.ifar_years_low,
      p.ifar_years_high,
      p.count,
      p.saturated,
    ]),
  };
}

/**
 * @param {EfficiencyAnswer} efficiency
 * @returns {Table}
 */
export function efficiencyTable({ by, unit, bins }) {
  const suffix = UNITS[unit.split(",")[0]] ?? "";
  const edges = [`${by}_low${suffix}`, `${by}_high${suffix}`];
  return {
    columns: [...edges, "injections", "found", "not_analysed", "efficiency", "low", "high"],
    rows: bins.map((b) => [
      b.low_edge,
      b.high_edge,
      b.injections,
      b.found,
      b.not_analysed,
      b.efficiency,
      b.low,
      b.high,
    ]),
  };
}

/**
 * @param {DriftAnswer} drift
 * @returns {Table}
 */
export function driftTable({ points }) {
  return {
    columns: ["statistic", "expected", "observed", "p_value"],
    rows: points.map((p) => [p.statistic, p.expected, p.observed, p.p_value]),
  };
}

/**
 * @param {InjectionsAnswer} injections
 * @returns {Table}
 */
export function planeTable(injections) {
  return {
    columns: ["gps_time_s", "snr", "chirp_mass_solar", "distance_mpc", "reason", "statistic"],
    rows: placed(injections).map(({ time, snr, chirp, distance, reason, event }) => [
      time,
      snr,
      chirp,
      distance,
      reason,
      event?.statistic,
    ]),
  };
}

/**
 * Times are those of the plot: the middle of the kernel behind a score.
 * @param {StreamPlot} plot
 * @returns {Table}
 */
export function streamTable({ lanes, lag }) {
  return {
    columns: ["kind", "gps_time_s", "minimum", "maximum"],
    rows: lanes.flatMap(({ kind, scores: { time, minimum, maximum } }) =>
      time.map((t, i) => [kind, (t - lag).toFixed(4), minimum[i], maximum[i]])
    ),
  };
}
