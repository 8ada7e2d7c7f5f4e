// What the plots show as columns and rows, with units.
import { placed } from "./plane.js";

const UNITS = { "Mpc": "_mpc", "solar masses": "_solar" };

export function ifarTable({ ifar }) {
  return ifar && {
    columns: ["statistic", "ifar_years", "ifar_years_low", "ifar_years_high", "count", "saturated"],
    rows: ifar.points.map((p) => [p.statistic, p.ifar_years, p.ifar_years_low, p.ifar_years_high, p.count, p.saturated]),
  };
}

export function efficiencyTable({ efficiency }) {
  const unit = efficiency && (UNITS[efficiency.unit.split(",")[0]] ?? "");
  return efficiency && {
    columns: [`${efficiency.by}_low${unit}`, `${efficiency.by}_high${unit}`, "injections", "found", "not_analysed", "efficiency", "low", "high"],
    rows: efficiency.bins.map((b) => [b.low_edge, b.high_edge, b.injections, b.found, b.not_analysed, b.efficiency, b.low, b.high]),
  };
}

export function driftTable({ drift }) {
  return drift && {
    columns: ["statistic", "expected", "observed", "p_value"],
    rows: drift.points.map((p) => [p.statistic, p.expected, p.observed, p.p_value]),
  };
}

export function planeTable({ injections }) {
  return injections && {
    columns: ["gps_time_s", "snr", "chirp_mass_solar", "distance_mpc", "reason", "statistic"],
    rows: placed(injections).map((one) => [one.time, one.snr, one.chirp, one.distance, one.reason, one.event?.statistic]),
  };
}

// Times are those of the plot: of the middle of what a score looks at.
export function streamTable({ lanes, lag }) {
  return {
    columns: ["kind", "gps_time_s", "minimum", "maximum"],
    rows: lanes.flatMap(({ kind, scores }) =>
      scores.time.map((time, i) => [kind, (time - lag).toFixed(4), scores.minimum[i], scores.maximum[i]])),
  };
}
