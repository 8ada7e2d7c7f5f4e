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

export function showCandidates(answer, onChoose) {
  fill("candidates", answer.candidates.slice(0, 10).map((candidate) => {
    const time = document.createElement("button");
    time.type = "button";
    time.textContent = candidate.time.toFixed(3);
    time.title = "Show the scores around it";
    time.addEventListener("click", () => onChoose(candidate.time));
    const far = candidate.far_per_year;
    const limit = candidate.saturated;
    return [
      cell(time), cell(utc(candidate.time), "td", "wide"), cell(fixed(candidate.statistic)),
      cell(far === null ? "no background" : limit
        ? [`≤ ${number(far)}`, span("louder than all background", "limited")] : number(far)),
      cell(far === null ? "–" : `${limit ? "≥ " : ""}${duration(YEAR / far)}`, "td", "wide"),
    ];
  }));
  byId("candidates-note").textContent = answer.total
    ? `Zero-lag events: ${answer.total} in ${duration(answer.livetime)}. “≤”: the rate is an upper limit set by the background's livetime.`
    : "No zero-lag events yet.";
}

export function showBins(answer) {
  fill("bins", answer.efficiency.filter((bin) => bin.injections).map((bin) => [
    cell(binName(bin), "th"), cell(bin.found), cell(bin.injections),
    cell([percent(bin.efficiency), span(` (${percent(bin.low)} – ${percent(bin.high)})`, "wide")]),
  ]));
  const lost = answer.missed.filter((injection) => injection.reason === "not_analysed").length;
  const threshold = answer.threshold === null ? "every event counts" : `threshold ${number(answer.threshold)}`;
  byId("bins-note").textContent = `${answer.found.length} of ${answer.total} found; ${threshold}; matched within ${answer.window} s.` +
    (answer.pending ? ` ${answer.pending} not analysed yet, not counted.` : "") +
    (lost ? ` ${lost} without a valid score at their time, counted as missed.` : "");
}

export function hideBins() {
  fill("bins", []);
  byId("bins-note").textContent = "";
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
