// The tables: text only, so that nothing from a run's name becomes markup.
import { binName } from "./efficiency.js";
import { YEAR, duration, fixed, number, percent, utc } from "./units.js";

const byId = (id) => document.getElementById(id);

function cell(content, tag = "td", className = "") {
  const node = document.createElement(tag);
  node.append(...[content].flat());
  if (className) node.className = className;
  if (tag === "th") node.scope = "row";
  return node;
}

function fill(id, rows) {
  byId(id).tBodies[0].replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells);
    return row;
  }));
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
      cell([time, " ", there]), cell(utc(candidate.time), "td", "wide"), cell(fixed(candidate.statistic)),
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

export function showSlides(answer) {
  // The loudest come first: they make the end of the IFAR curve.
  fill("slides", answer.slides.map((slide) => [
    cell(Object.entries(slide.shifts).map(([ifo, shift]) => `${ifo} ${number(shift)}`).join(", "), "th"),
    cell(duration(slide.livetime)), cell(slide.events),
    cell(slide.loudest === null ? "–" : fixed(slide.loudest)),
    cell(slide.blocks),
  ]));
  const hidden = answer.total - answer.slides.length;
  byId("slides-note").textContent = answer.total === 0 ? "No timeslides yet."
    : hidden > 0 ? `… and ${hidden} more, with quieter events.` : "Each slide shifts one detector's data against the other's.";
}
