// The tables: text only, so that nothing from a run's name becomes markup.
/**
 * @import { BackgroundAnswer, Candidates, DriftAnswer, EfficiencyAnswer, InjectionsAnswer,
 *   VolumesAnswer } from "../openapi.d.ts"
 */
import { all, byId } from "./dom.js";
import { binName, filledBins } from "./efficiency.js";
import { duration, fixed, number, percent, utc, YEAR } from "./units.js";

/**
 * @param {string | number | (string | Node)[]} content
 * @param {"td" | "th"} tag
 */
function cell(content, tag = "td", className = "") {
  const node = document.createElement(tag);
  if (Array.isArray(content)) node.append(...content);
  else node.textContent = String(content);
  if (className) node.className = className;
  if (tag === "th") node.scope = "row";
  return node;
}

const FOCUSABLE = "a, button";

/**
 * Fill a table. Rows that stay the same keep their place and focus; of a row that changes,
 * the same link or button keeps the focus.
 * @param {string} id
 * @param {HTMLElement[][]} rows
 */
function fill(id, rows) {
  const body = byId(id, HTMLTableElement).tBodies[0];
  rows.forEach((cells, i) => {
    const row = document.createElement("tr");
    row.append(...cells);
    const old = body.rows[i];
    if (!old) {
      body.append(row);
    } else if (!old.isEqualNode(row)) {
      const place = all(FOCUSABLE, old).findIndex((node) => node === document.activeElement);
      old.replaceWith(row);
      all(FOCUSABLE, row)[place]?.focus();
    }
  });
  while (body.rows.length > rows.length) body.deleteRow(-1);
}

/**
 * Offer options, without touching a select that has them already: it may be open.
 * @param {HTMLSelectElement} select
 * @param {HTMLOptionElement[]} wanted
 */
export function offer(select, wanted) {
  /** @param {Iterable<HTMLOptionElement>} options */
  const described = (options) =>
    [...options].map(({ value, text, disabled }) => `${value} ${text} ${disabled}`).join("\n");
  if (described(wanted) !== described(select.options)) select.replaceChildren(...wanted);
}

/**
 * @param {string} words
 * @param {string} className
 */
function span(words, className) {
  const node = document.createElement("span");
  node.className = className;
  node.textContent = words;
  return node;
}

// Slides in the table; a run has hundreds.
export const SLIDES = 10;

/**
 * @param {string} run
 * @param {Candidates} answer
 * @param {(time: number) => void} onChoose
 */
export function showCandidates(run, answer, onChoose) {
  const rows = answer.candidates.slice(0, 10).map((candidate) => {
    const link = document.createElement("a");
    link.href = `/runs/${run}/candidates/${candidate.id}`;
    link.textContent = candidate.time.toFixed(3);
    link.title = "Its strain, and what is around it";
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: "in the scores", className: "wide" });
    button.addEventListener("click", () => onChoose(candidate.time));
    const { far_per_year: far, saturated } = candidate;
    const time = [link, " ", button, span(`${utc(candidate.time)} UTC`, "wide below")];
    const identity = [cell(time), cell(fixed(candidate.statistic))];
    if (far === null) return [...identity, cell("no background"), cell("–", "td", "wide")];
    const rate = saturated
      ? [`≤ ${number(far)}`, span("louder than all background", "limited")]
      : number(far);
    const inverse = (saturated ? "≥ " : "") + duration(YEAR / far);
    return [...identity, cell(rate), cell(inverse, "td", "wide")];
  });
  fill("candidates", rows);
  byId("candidates-note").textContent = answer.total
    ? `Zero-lag events: ${answer.total} in ${duration(answer.livetime)}. ` +
      "“≤”: the rate is an upper limit set by the background's livetime."
    : "No zero-lag events yet.";
}

/**
 * @param {InjectionsAnswer} answer
 * @param {EfficiencyAnswer} efficiency
 */
export function showBins(answer, efficiency) {
  const rows = filledBins(efficiency).map((bin) => [
    cell(binName(bin), "th"),
    cell(bin.found),
    cell(bin.injections),
    cell([
      percent(bin.efficiency),
      span(` (${percent(bin.low)} – ${percent(bin.high)})`, "wide"),
    ]),
  ]);
  fill("bins", rows);
  const lost = answer.efficiency.reduce((total, bin) => total + bin.not_analysed, 0);
  const found = answer.efficiency.reduce((total, bin) => total + bin.found, 0);
  const threshold = answer.threshold === null
    ? "every event counts"
    : `threshold ${number(answer.threshold)}`;
  byId("bins-note").textContent =
    `${found} of ${answer.total} found; ${threshold}; matched within ${answer.window} s.` +
    (answer.pending ? ` ${answer.pending} not analysed yet, not counted.` : "") +
    (answer.vetoed ? ` ${answer.vetoed} in vetoed time, not counted.` : "") +
    (lost ? ` ${lost} without a valid score at their time, counted as missed.` : "");
}

export function hideBins() {
  fill("bins", []);
  byId("bins-note").textContent = "";
}

// Effective number of injections that a volume needs to be of use: it is known to a third then.
const ENOUGH = 10;

/**
 * Sensitive volume, or why there is none.
 * @param {VolumesAnswer | null} answer
 */
export function showVolumes(answer) {
  const rows = (answer?.volumes ?? []).map((volume) => {
    const { distance_error: error } = volume;
    const distance = error === null
      ? "nothing found"
      : [number(volume.distance), span(` ± ${number(error)}`, "wide")];
    const effective = number(volume.effective);
    return [
      cell(`${number(volume.mass_1)} + ${number(volume.mass_2)}`, "th"),
      cell(distance),
      cell([number(volume.volume / 1e9), span(` ± ${number(volume.volume_error / 1e9)}`, "wide")]),
      cell(
        volume.effective < ENOUGH ? [effective, span("too few to rely on", "limited")] : effective,
      ),
      cell(percent(volume.covered), "td", "wide"),
    ];
  });
  fill("volumes", rows);
  byId("volumes-note").textContent = answer
    ? `From ${answer.injections} injections and ${answer.rejected} draws that were too faint, ` +
      `to redshift ${number(answer.max_redshift)}. Masses are the source's; “effective”: ` +
      "found injections of that pair itself that would know it as well."
    : "Needs injections that were drawn in volume, with the number of those too faint: " +
      "simulate signals with --volume.";
}

/**
 * The loudest slides come first: they make the end of the IFAR curve.
 * @param {BackgroundAnswer} answer
 * @param {number} offset
 */
export function showSlides(answer, offset) {
  const rows = answer.slides.map((slide) => [
    cell(Object.entries(slide.shifts).map(([ifo, s]) => `${ifo} ${number(s)}`).join(", "), "th"),
    cell(duration(slide.livetime)),
    cell(slide.events),
    cell(slide.loudest === null ? "–" : fixed(slide.loudest)),
    cell(slide.blocks),
  ]);
  fill("slides", rows);
  const last = offset + answer.slides.length;
  byId("slides-note").textContent = answer.total === 0
    ? "No timeslides yet."
    : `Slides ${offset + 1} to ${last} of ${answer.total}, the loudest first. ` +
      "Each shifts the detectors' data against each other.";
  byId("slides-pages").hidden = answer.total <= SLIDES;
  byId("slides-before", HTMLButtonElement).disabled = offset === 0;
  byId("slides-after", HTMLButtonElement).disabled = last >= answer.total;
}

const DRIFTED = 1e-4; // largest p-value of data that do not fit the background

/**
 * Whether the newest data are still those of the background.
 * @param {DriftAnswer | null} answer
 */
export function showDrift(answer) {
  const note = byId("drift-note");
  if (!answer?.livetime) {
    note.classList.remove("limited");
    note.textContent = "";
    return;
  }
  // The statistic that deviates most.
  const [worst] = answer.points.toSorted((one, other) => one.p_value - other.p_value);
  const drifted = answer.p_value < DRIFTED;
  note.classList.toggle("limited", drifted);
  note.textContent = `The newest ${duration(answer.livetime)} of zero-lag data: ` +
    `${worst.observed} events of at least ${fixed(worst.statistic)}, ` +
    `${number(worst.expected)} expected; they ${drifted ? "no longer " : ""}fit the background ` +
    `(p = ${number(answer.p_value)}).`;
}
