// The page: asks what changed, and draws what did.
/**
 * @import { Candidates, DriftAnswer, EfficiencyAnswer, IfarAnswer, InjectionsAnswer, RunStatus,
 *   VolumesAnswer } from "../openapi.d.ts"
 */
/** @import { Table } from "./data.js" */
/** @import { Marks } from "./stream.js" */
import { get, listen, nanoseconds, reason } from "./api.js";
import { driftTable, efficiencyTable, ifarTable, planeTable, streamTable } from "./data.js";
import { all, byId, datum } from "./dom.js";
import { offerDownloads } from "./download.js";
import { message, onResize } from "./draw.js";
import { drawDrift } from "./drift.js";
import { drawEfficiency, isParameter } from "./efficiency.js";
import { drawIfar } from "./ifar.js";
import { move } from "./navigate.js";
import { drawPlane, placed } from "./plane.js";
import { Progress } from "./progress.js";
import { CANDIDATES, StreamPlot } from "./stream.js";
import {
  hideBins,
  offer,
  showBins,
  showCandidates,
  showDrift,
  showSlides,
  showVolumes,
  SLIDES,
} from "./tables.js";
import { duration, number, YEAR } from "./units.js";

const INTERVAL = 1000; // least time between two looks at the API, ms
const CLOCK = 20_000; // between two looks at how long nothing came, ms
const PATIENCE = 5000; // until a failed look is tried again, ms
/** @type {[name: string, perYear: number][]} */
const RATES = [
  ["1 per year", 1],
  ["1 per month", 12],
  ["1 per week", YEAR / 604800],
  ["1 per day", YEAR / 86400],
  ["4 per day", (4 * YEAR) / 86400],
  ["1 per hour", YEAR / 3600],
  ["1 per 10 minutes", YEAR / 600],
  ["1 per minute", YEAR / 60],
];

const runs = byId("run", HTMLSelectElement);
const rates = byId("far", HTMLSelectElement);
const parameters = byId("by", HTMLSelectElement);

const state = {
  run: datum("run"),
  seen: "", // run and revision that are drawn
  turn: 0, // number of the newest look
  looking: 0, // looks in progress
  slide: 0, // first timeslide in the table
  pinned: new URLSearchParams(location.search).has("run"),
  rateChosen: false,
};

/**
 * What is drawn. `asked` is what injections are asked for with, where a rate is reached.
 * @typedef {object} Shown
 * @property {RunStatus} run
 * @property {{ run_id: string, far_per_year: number } | null} asked
 * @property {IfarAnswer | null} ifar
 * @property {Candidates} candidates
 * @property {DriftAnswer | null} drift
 * @property {InjectionsAnswer | null} injections
 * @property {EfficiencyAnswer | null} efficiency
 * @property {VolumesAnswer | null} volumes
 */

const MARKS = 2000; // most injections that are drawn one by one
const LOUDEST = 500; // candidates that have a rank
const progress = new Progress();
/** @type {Shown | undefined} */
let shown;

/**
 * @param {number} start
 * @param {number} stop
 */
const between = (start, stop) => ({
  start_ns: nanoseconds(start),
  stop_ns: nanoseconds(stop + 1),
});

/**
 * Candidates of a stretch of time: from those of the whole run, or asked for where these are
 * not all.
 * @param {Candidates} loudest
 * @param {string} run
 * @param {number} start
 * @param {number} stop
 * @returns {Promise<Marks["candidates"]>}
 */
async function candidatesBetween({ candidates, total }, run, start, stop) {
  const ranked = candidates.map((candidate, i) => ({ ...candidate, rank: i + 1 }))
    .filter(({ time }) => time >= start && time <= stop);
  if (ranked.length >= CANDIDATES || candidates.length >= total) return ranked;
  const asked = { run_id: run, ...between(start, stop), limit: CANDIDATES };
  const more = await get("/v1/runs/{run_id}/candidates", asked);
  const ranks = new Map(ranked.map(({ id, rank }) => [id, rank]));
  return more.candidates.map((candidate) => ({ ...candidate, rank: ranks.get(candidate.id) }));
}

/**
 * Injections of a stretch of time likewise, and a note on what of them is marked.
 * @param {Shown} drawn
 * @param {number} start
 * @param {number} stop
 */
async function injectionsBetween({ run, asked, injections }, start, stop) {
  if (!injections || !asked) {
    const note = run.injections.streams
      ? "Injections are marked once the background reaches a rate."
      : "";
    return { injections: [], note };
  }
  const listed = [...injections.found, ...injections.missed];
  if (listed.length >= injections.total) return { injections: listed, note: "" };
  const { found, missed } = await get("/v1/runs/{run_id}/injections", {
    ...asked,
    ...between(start, stop),
    limit: MARKS,
  });
  const inView = [...found, ...missed];
  const cut = inView.length >= MARKS;
  const note = cut ? `Of the injections in view, the earliest ${MARKS} are marked.` : "";
  return { injections: inView, note };
}

const stream = new StreamPlot(byId("stream"), byId("readout"), {
  scores: (run, kind, start, stop, points) =>
    get("/v1/runs/{run_id}/scores", { run_id: run.id, kind, ...between(start, stop), points }),
  marks: async (run, start, stop) => {
    if (!shown) return { candidates: [], injections: [] };
    const drawn = shown;
    const candidates = await candidatesBetween(drawn.candidates, run.id, start, stop);
    const { injections, note } = await injectionsBetween(drawn, start, stop);
    byId("stream-note").textContent = note;
    return { candidates, injections };
  },
  failed,
});

/**
 * @param {string} id
 * @param {string} text
 * @param {"good" | "warn" | "bad" | ""} tone
 */
function badge(id, text, tone) {
  Object.assign(byId(id), { textContent: text, className: `badge ${tone}`, hidden: !text });
}

/** @type {Record<RunStatus["state"], "good" | "bad" | "">} */
const TONES = { running: "good", complete: "", failed: "bad" };

/** @param {RunStatus} run */
function showNumbers(run) {
  const { background, zero_lag: zeroLag, latency_ms: latency } = run;
  /**
   * @param {string} id
   * @param {...string} parts
   */
  const text = (id, ...parts) => {
    byId(id).textContent = parts.join("");
  };
  badge(
    "data-kind",
    run.simulated ? "simulated data" : "real data",
    run.simulated ? "warn" : "good",
  );
  badge("state", run.state, TONES[run.state]);
  byId("message").hidden = !run.message;
  text("message", run.message ?? "");
  byId("message").classList.toggle("bad", run.state === "failed");
  text(
    "provenance",
    `${run.data} · model ${run.model.slice(0, 12)} · geometry ${run.geometry_digest}`,
    ` · updated ${run.updated.slice(0, 19).replace("T", " ")} UTC`,
  );
  text("livetime", duration(zeroLag.livetime));
  text(
    "livetime-note",
    `of ${duration(zeroLag.planned)} planned`,
    zeroLag.gaps ? `, ${duration(zeroLag.gaps)} not valid` : "",
    zeroLag.vetoed ? `, ${duration(zeroLag.vetoed)} vetoed` : "",
  );
  text("background", duration(background.livetime));
  text(
    "background-note",
    background.planned === null ? "" : `of ${duration(background.planned)} planned, `,
    `${background.events} events`,
    run.background_run ? `; rates rest on that of run ${run.background_run}` : "",
  );
  text("throughput", run.throughput === null ? "–" : `${number(run.throughput)} s/s`);
  text("latency", latency ? `${number(latency.p50)} ms` : "–");
  text(
    "latency-note",
    latency ? `median; 99 % below ${number(latency.p99)} ms` : "not measured yet",
    run.lag === null ? "" : `; scores come ${duration(Math.max(0, run.lag))} after the data`,
  );
  byId("progress").hidden = !background.planned;
  if (background.planned) {
    const share = Math.min(1, background.livetime / background.planned);
    byId("progress-bar", HTMLProgressElement).value = share;
    text("progress-note", progress.say(run));
  }
  document.title = `${run.name} · chirpwatch`;
}

/**
 * Offer the rates that the background reaches; keep the choice, or take the lowest.
 * @param {number | null} lowest
 */
function offerRates(lowest) {
  const before = rates.value;
  const wanted = RATES.map(([name, rate]) => {
    const out = lowest === null || rate < lowest;
    const option = new Option(out ? `${name} (out of reach)` : name, String(rate));
    option.disabled = out;
    return option;
  });
  offer(rates, wanted);
  const open = [...rates.options].filter((option) => !option.disabled);
  const chosen = state.rateChosen && open.find((option) => option.value === before);
  rates.value = (chosen || open[0] || rates.options[0]).value;
  return open.length ? Number(rates.value) : null;
}

/**
 * Offer the parameters that all injections have; keep the choice if it is among them.
 * @param {string[]} names
 */
function offerParameters(names) {
  for (const option of parameters.options) option.disabled = !names.includes(option.value);
  if (parameters.selectedOptions[0].disabled) parameters.value = "snr";
  return isParameter(parameters.value) ? parameters.value : "snr";
}

function drawAll() {
  if (!shown) return;
  const { ifar, candidates, drift, injections, efficiency, volumes } = shown;
  drawIfar(byId("ifar"), ifar, candidates);
  drawDrift(byId("drift"), drift);
  if (injections && efficiency) {
    drawEfficiency(byId("efficiency"), efficiency);
    showBins(injections, efficiency);
    drawPlane(byId("plane"), injections);
    const drawn = placed(injections).length;
    byId("plane-note").textContent = drawn && drawn < injections.total
      ? `${drawn} of ${injections.total} are drawn, the earliest.`
      : "";
  } else {
    for (const id of ["efficiency", "plane"]) {
      message(byId(id), "Needs injections, and background that reaches one of these rates.");
    }
    hideBins();
  }
  const { text } = parameters.selectedOptions[0];
  byId("bins-by").textContent = efficiency?.unit ? `${text}, ${efficiency.unit}` : text;
  showVolumes(volumes);
}

/**
 * Ask for a run's results, and draw them. A look that a newer one has overtaken must not draw:
 * it may have another rate or run.
 * @param {RunStatus} run
 * @param {() => boolean} current
 */
async function load(run, current) {
  const one = { run_id: run.id };
  const [background, candidates] = await Promise.all([
    get("/v1/runs/{run_id}/background", { ...one, limit: SLIDES, offset: state.slide }),
    get("/v1/runs/{run_id}/candidates", { ...one, limit: LOUDEST }),
  ]);
  // Only what the background can answer is asked.
  if (!current()) return;
  const lowest = background.lowest_far_per_year;
  byId("lowest").textContent = lowest === null ? "–" : `${number(lowest)} / yr`;
  byId("lowest-note").textContent = lowest === null
    ? "needs timeslides"
    : `one per ${duration(YEAR / lowest)}`;
  const rate = offerRates(lowest);
  const asked = rate === null || !run.injections.streams ? null : { ...one, far_per_year: rate };
  const [ifar, drift, injections] = await Promise.all([
    lowest === null ? null : get("/v1/runs/{run_id}/ifar", one),
    lowest === null ? null : get("/v1/runs/{run_id}/drift", one),
    asked && get("/v1/runs/{run_id}/injections", { ...asked, limit: MARKS }),
  ]);
  if (!current()) return;
  const [efficiency, volumes] = asked && injections
    ? await loadInjected(asked, injections)
    : [null, null];
  if (!current()) return;
  shown = { run, asked, ifar, candidates, drift, injections, efficiency, volumes };
  showCandidates(run.id, candidates, (time) => stream.centre(time));
  showSlides(background, state.slide);
  showDrift(drift);
  drawAll();
  await stream.setRun(run);
}

/**
 * Ask for what injections measure: efficiency, and volume if they were drawn in volume.
 * @param {{ run_id: string, far_per_year: number }} asked
 * @param {InjectionsAnswer} injections
 */
function loadInjected(asked, injections) {
  const by = offerParameters(injections.parameters);
  const volume = { ...asked, far_per_year: [asked.far_per_year] };
  return Promise.all([
    get("/v1/runs/{run_id}/efficiency", { ...asked, by }),
    injections.drawn_in_volume ? get("/v1/runs/{run_id}/volume", volume) : null,
  ]);
}

async function look() {
  const turn = ++state.turn;
  const current = () => turn === state.turn;
  /** @type {{ runs: { id: string, name: string }[] }} */
  const { runs: listed } = await get("/v1/runs", { limit: 200 });
  if (!current()) return;
  // Without a choice, the wall shows the newest run.
  if (!state.pinned && listed.length) state.run = listed[0].id;
  byId("empty").hidden = listed.length > 0;
  byId("content").hidden = byId("picker").hidden = !listed.length;
  if (!state.run) return;
  const run = await get("/v1/runs/{run_id}", { run_id: state.run });
  if (!current()) return;
  // An old one is not in the list.
  if (!listed.some(({ id }) => id === run.id)) listed.push(run);
  offer(runs, listed.map(({ name, id }) => new Option(name, id)));
  runs.value = run.id;
  const seen = `${run.id} ${run.revision}`;
  if (seen === state.seen) return;
  showNumbers(run);
  await load(run, current);
  if (!current()) return;
  state.seen = seen;
  document.body.dataset.revision = String(run.revision);
}

/** @param {unknown} error */
function failed(error) {
  // What is drawn may be half of the new.
  state.seen = "";
  badge("link", `not updating: ${reason(error)}`, "bad");
  soon(PATIENCE);
}

async function lookOrSay() {
  state.looking += 1;
  try {
    await look();
    badge("link", "", "");
  } catch (error) {
    failed(error);
  }
  state.looking -= 1;
}

/** @type {number | undefined} */
let due;
// Look again, however often this is asked for in the meantime.
function soon(wait = INTERVAL) {
  due ??= setTimeout(() => {
    due = undefined;
    // The user's choices overtake a look, the clock never does.
    if (state.looking) soon();
    else lookOrSay();
  }, wait);
}

function ask() {
  state.seen = "";
  lookOrSay();
}

runs.addEventListener("change", () => {
  Object.assign(state, { run: runs.value, pinned: true, slide: 0 });
  history.replaceState(null, "", `?run=${encodeURIComponent(state.run)}`);
  ask();
});
rates.addEventListener("change", () => {
  state.rateChosen = true;
  ask();
});
parameters.addEventListener("change", ask);
for (const button of all("[data-slides]")) {
  button.addEventListener("click", () => {
    state.slide = Math.max(0, state.slide + SLIDES * Number(button.dataset.slides));
    ask();
  });
}
for (const button of all("[data-move]")) {
  button.addEventListener("click", () => move(stream, button.dataset.move));
}
/**
 * What the plot with an id shows.
 * @type {Record<string, (drawn: Shown) => Table | null>}
 */
const TABLES = {
  stream: () => streamTable(stream),
  drift: ({ drift }) => drift && driftTable(drift),
  ifar: ({ ifar }) => ifar && ifarTable(ifar),
  efficiency: ({ efficiency }) => efficiency && efficiencyTable(efficiency),
  plane: ({ injections }) => injections && planeTable(injections),
};
offerDownloads(() => shown?.run.id ?? "none", (id) => shown && TABLES[id](shown), failed);
onResize(byId("ifar"), drawAll);
// A run that has stalled sends nothing that would say so.
setInterval(() => {
  if (shown) byId("progress-note").textContent = progress.say(shown.run);
}, CLOCK);
listen(() => soon(), () => soon());
lookOrSay();
