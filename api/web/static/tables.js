// The tables: text only, so that nothing from a run's name becomes markup.
import { byId } from "./api.js";
import { binName } from "./efficiency.js";
import { YEAR, duration, fixed, number, percent, utc } from "./units.js";

function cell(content, tag = "td", className = "") {
  const node = document.createElement(tag);
  node.append(...[content].flat());
  if (className) node.className = className;
  if (tag === "th") node.scope = "row";
  return node;
}

const FOCUSABLE = "a, button";

// Rows that stay as they are keep their place and who is on them; of one that changes,
// the same link or button keeps the focus.
function fill(id, rows) {
  const body = byId(id).tBodies[0];
  rows.forEach((cells, i) => {
    const row = document.createElement("tr");
    row.append(...cells);
    const old = body.rows[i];
    if (!old) return body.append(row);
    if (old.isEqualNode(row)) return undefined;
    const place = [...old.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
    old.replaceWith(row);
    return row.querySelectorAll(FOCUSABLE)[place]?.focus();
  });
  while (body.rows.length > rows.length) body.lastElementChild.remove();
}

// What a select offers, without touching one that offers it already: it may be open.
export function options(select, wanted) {
  const told = ({ value, text, disabled }) => `${value} ${text} ${disabled}`;
  if (wanted.map(told).join("\n") !== [...select.options].map(told).join("\n")) select.replaceChildren(...wanted);
}

function span(words, className) {
  const node = document.createElement("span");
  node.className = className;
  node.textContent = words;
  return node;
}

// Slides in the table; a run has hundreds.
export const SLIDES = 10;

export function showCandidates(run, answer, onChoose) {
  fill("candidates", answer.candidates.slice(0, 10).map((candidate) => {
    const time = document.createElement("a");
    time.href = `/runs/${run}/candidates/${candidate.id}`;
    time.textContent = candidate.time.toFixed(3);
    time.title = "Its strain, and what is around it";
    const there = document.createElement("button");
    Object.assign(there, { type: "button", textContent: "in the scores", className: "wide" });
    there.addEventListener("click", () => onChoose(candidate.time));
    const far = candidate.far_per_year;
    const limit = candidate.saturated;
    return [
      cell([time, " ", there, span(`${utc(candidate.time)} UTC`, "wide below")]), cell(fixed(candidate.statistic)),
      cell(far === null ? "no background" : limit
        ? [`≤ ${number(far)}`, span("louder than all background", "limited")] : number(far)),
      cell(far === null ? "–" : `${limit ? "≥ " : ""}${duration(YEAR / far)}`, "td", "wide"),
    ];
  }));
  byId("candidates-note").textContent = answer.total
    ? `Zero-lag events: ${answer.total} in ${duration(answer.livetime)}. “≤”: the rate is an upper limit set by the background's livetime.`
    : "No zero-lag events yet.";
}

export function showBins(answer, efficiency) {
  fill("bins", efficiency.bins.filter((bin) => bin.injections).map((bin) => [
    cell(binName(bin), "th"), cell(bin.found), cell(bin.injections),
    cell([percent(bin.efficiency), span(` (${percent(bin.low)} – ${percent(bin.high)})`, "wide")]),
  ]));
  const lost = answer.efficiency.reduce((total, bin) => total + bin.not_analysed, 0);
  const found = answer.efficiency.reduce((total, bin) => total + bin.found, 0);
  const threshold = answer.threshold === null ? "every event counts" : `threshold ${number(answer.threshold)}`;
  byId("bins-note").textContent = `${found} of ${answer.total} found; ${threshold}; matched within ${answer.window} s.` +
    (answer.pending ? ` ${answer.pending} not analysed yet, not counted.` : "") +
    (answer.vetoed ? ` ${answer.vetoed} in vetoed time, not counted.` : "") +
    (lost ? ` ${lost} without a valid score at their time, counted as missed.` : "");
}

export function hideBins() {
  fill("bins", []);
  byId("bins-note").textContent = "";
}

// Injections that a volume must rest on to be of use: it is known to a third then.
const ENOUGH = 10;

// Sensitive volume, or why there is none.
export function showVolumes(answer) {
  fill("volumes", (answer?.volumes ?? []).map((one) => [
    cell(`${number(one.mass_1)} + ${number(one.mass_2)}`, "th"),
    cell(one.found ? [number(one.distance), span(` ± ${number(one.distance_error)}`, "wide")] : "nothing found"),
    cell([number(one.volume / 1e9), span(` ± ${number(one.volume_error / 1e9)}`, "wide")]),
    cell(one.effective < ENOUGH ? [number(one.effective), span("too few to rely on", "limited")] : number(one.effective)),
    cell(percent(one.covered), "td", "wide"),
  ]));
  byId("volumes-note").textContent = answer
    ? `From ${answer.injections} injections and ${answer.rejected} draws that were too faint, to redshift ${number(answer.max_redshift)}. Masses are the source's; “effective”: found injections of that pair itself that would know it as well.`
    : "Needs injections that were drawn in volume, with the number of those too faint: simulate signals with --volume.";
}

export function showSlides(answer, offset) {
  // The loudest come first: they make the end of the IFAR curve.
  fill("slides", answer.slides.map((slide) => [
    cell(Object.entries(slide.shifts).map(([ifo, shift]) => `${ifo} ${number(shift)}`).join(", "), "th"),
    cell(duration(slide.livetime)), cell(slide.events),
    cell(slide.loudest === null ? "–" : fixed(slide.loudest)),
    cell(slide.blocks),
  ]));
  const last = offset + answer.slides.length;
  byId("slides-note").textContent = answer.total === 0 ? "No timeslides yet."
    : `Slides ${offset + 1} to ${last} of ${answer.total}, the loudest first. Each shifts the detectors' data against each other.`;
  byId("slides-pages").hidden = answer.total <= SLIDES;
  byId("slides-before").disabled = offset === 0;
  byId("slides-after").disabled = last >= answer.total;
}

const DRIFTED = 1e-4; // probability from which on data are not those of the background

// Whether the newest data are still those of the background.
export function showDrift(answer) {
  const note = byId("drift-note");
  note.classList.remove("limited");
  if (!answer?.livetime) return void (note.textContent = "");
  // Of all the statistics that are compared, the one that deviates most.
  const [worst] = [...answer.points].sort((one, other) => one.p_value - other.p_value);
  const drifted = answer.p_value < DRIFTED;
  note.classList.toggle("limited", drifted);
  note.textContent = `The newest ${duration(answer.livetime)} of zero-lag data: `
    + `${worst.observed} events of at least ${fixed(worst.statistic)}, ${number(worst.expected)} expected; `
    + (drifted ? `they no longer fit the background (p = ${number(answer.p_value)}).`
      : `they fit the background (p = ${number(answer.p_value)}).`);
}
