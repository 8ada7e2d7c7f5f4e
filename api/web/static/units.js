// Numbers as people read them.
import { datum } from "./dom.js";

export const YEAR = 31557600; // Julian year, s

/**
 * GPS times from which on an offset holds, and that offset, Unix time minus GPS time, s.
 * @type {[since: number, offset: number][]}
 */
const UNIX_OFFSETS = JSON.parse(datum("unixOffsets"));

/**
 * UTC of a GPS time, cut to a number of decimals.
 * @param {number} gps
 */
export function utc(gps, decimals = 0) {
  const [, offset] = UNIX_OFFSETS.findLast(([since]) => gps >= since) ?? UNIX_OFFSETS[0];
  const scale = 10 ** decimals;
  const unix = Math.floor((gps + offset) * scale) / scale;
  const text = new Date(unix * 1000).toISOString();
  return text.slice(0, 10) + " " + text.slice(11, decimals ? 20 + decimals : 19);
}

/** @type {[size: number, name: string][]} */
const SCALES = [[YEAR, "yr"], [86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/**
 * A length of time in its two largest units: "1 h 35 min".
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds >= 100 * YEAR) return `${number(seconds / YEAR)} yr`;
  if (seconds > 0 && seconds < 1) return `${number(seconds)} s`;
  if (seconds < 60) return `${+seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const first = SCALES.findIndex(([size]) => seconds >= size);
  const [large, name] = SCALES[first];
  const [small, smallName] = SCALES[first + 1];
  let whole = Math.floor(seconds / large);
  let rest = Math.round((seconds - whole * large) / small);
  if (rest * small >= large) [whole, rest] = [whole + 1, 0];
  return rest ? `${whole} ${name} ${rest} ${smallName}` : `${whole} ${name}`;
}

/**
 * Three significant digits; powers of ten where digits would mislead or not fit.
 * @param {number} value
 */
export function number(value) {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 0.01 && size < 1e5) {
    const digits = Math.max(0, 2 - Math.floor(Math.log10(size)));
    return (+value.toFixed(digits)).toLocaleString("en", { maximumFractionDigits: digits })
      .replaceAll(",", "\u202f").replace("-", "−");
  }
  const [mantissa, power] = value.toExponential(1).split("e");
  const raised = [...String(+power)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)] ?? "⁻").join("");
  return `${mantissa.replace("-", "−")}×10${raised}`;
}

/** @param {number} value */
export const fixed = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

/** @param {number} share */
export const percent = (share) => `${(100 * share).toFixed(0)} %`;
