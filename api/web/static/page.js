// The page: asks what changed, and draws what did.
import { byId, get, listen, nanoseconds } from "./api.js";
import { message, onResize } from "./draw.js";
import { drawDrift } from "./drift.js";
import { drawEfficiency } from "./efficiency.js";
import { drawIfar } from "./ifar.js";
import { move } from "./navigate.js";
import { driftTable, efficiencyTable, ifarTable, planeTable, streamTable } from "./data.js";
import { offerDownloads } from "./download.js";
import { drawPlane, placed } from "./plane.js";
import { Progress } from "./progress.js";
import { CANDIDATES, StreamPlot } from "./stream.js";
import { SLIDES, hideBins, options, showBins, showCandidates, showDrift, showSlides, showVolumes } from "./tables.js";
import { YEAR, duration, number } from "./units.js";

const INTERVAL = 1000; // least time between two looks at the API, ms
const CLOCK = 20_000; // between two looks at how long nothing came, ms
const PATIENCE = 5000; // until one that failed is tried again, ms
const RATES = [["1 per year", 1], ["1 per month", 12], ["1 per week", YEAR / 604800], ["1 per day", YEAR / 86400],
  ["4 per day", (4 * YEAR) / 86400], ["1 per hour", YEAR / 3600], ["1 per 10 minutes", YEAR / 600], ["1 per minute", YEAR / 60]];

const state = {
  run: document.body.dataset.run, revision: null, turn: 0, looking: 0, slide: 0,
  pinned: new URLSearchParams(location.search).has("run"),
};

const MARKS = 2000; // injections that are drawn one by one
const LOUDEST = 500; // candidates that are known by rank
const progress = new Progress();
let shown = null; // what is drawn, and of which run

const between = (start, stop) => ({ start_ns: nanoseconds(start), stop_ns: nanoseconds(stop + 1) });

// Candidates and injections of a stretch of time: from what is known of the whole run,
// or asked for where that is not all.
async function marks(run, start, stop) {
  const base = `/v1/runs/${run.id}`;
  const within = ({ time }) => time >= start && time <= stop;
  const { candidates: { candidates: ranked, total }, injections: known, asked } = shown;
  let candidates = ranked.map((one, i) => ({ ...one, rank: i + 1 })).filter(within);
  if (candidates.length < CANDIDATES && ranked.length < total) {
    const more = await get(`${base}/candidates`, { ...between(start, stop), limit: CANDIDATES });
    const ranks = new Map(candidates.map(({ id, rank }) => [id, rank]));
    candidates = more.candidates.map((one) => ({ ...one, rank: ranks.get(one.id) }));
  }
  let injections = known ? [...known.found, ...known.missed] : [];
  let note = known || !run.injections.streams ? "" : "Injections are marked once the background reaches a rate.";
  if (injections.length < known?.total) {
    const more = await get(`${base}/injections`, { ...asked, ...between(start, stop), limit: MARKS });
    injections = [...more.found, ...more.missed];
    if (injections.length >= MARKS) note = `Of the injections in view, the earliest ${MARKS} are marked.`;
  }
  byId("stream-note").textContent = note;
  return { candidates, injections };
}

const stream = new StreamPlot(byId("stream"), byId("readout"), {
  scores: (run, kind, start, stop, points) => get(`/v1/runs/${run.id}/scores`, { kind, ...between(start, stop), points }),
  marks,
  failed,
});

function badge(id, text, tone) {
  Object.assign(byId(id), { textContent: text, className: `badge ${tone}`, hidden: !text });
}

function showNumbers(run) {
  const slides = run.background;
  const text = (id, value) => { byId(id).textContent = value; };
  badge("data-kind", run.simulated ? "simulated data" : "real data", run.simulated ? "warn" : "good");
  badge("state", run.state, { running: "good", failed: "bad" }[run.state] ?? "");
  byId("message").hidden = !run.message;
  text("message", run.message ?? "");
  byId("message").classList.toggle("bad", run.state === "failed");
  text("provenance", `${run.data} · model ${run.model.slice(0, 12)} · geometry ${run.geometry_digest} · updated ${run.updated.slice(0, 19).replace("T", " ")} UTC`);
  text("livetime", duration(run.zero_lag.livetime));
  text("livetime-note", `of ${duration(run.zero_lag.planned)} planned`
    + (run.zero_lag.gaps ? `, ${duration(run.zero_lag.gaps)} not valid` : "")
    + (run.zero_lag.vetoed ? `, ${duration(run.zero_lag.vetoed)} vetoed` : ""));
  text("background", duration(slides.livetime));
  text("background-note", (slides.planned === null ? "" : `of ${duration(slides.planned)} planned, `) + `${slides.events} events`
    + (run.background_run ? `; rates rest on that of run ${run.background_run}` : ""));
  text("throughput", run.throughput === null ? "–" : `${number(run.throughput)} s/s`);
  const latency = run.latency_ms;
  text("latency", latency ? `${number(latency.p50)} ms` : "–");
  text("latency-note", (latency ? `median; 99 % below ${number(latency.p99)} ms` : "not measured yet")
    + (run.lag === null ? "" : `; scores come ${duration(Math.max(0, run.lag))} after the data`));
  byId("progress").hidden = !slides.planned;
  if (slides.planned) {
    byId("progress-bar").value = Math.min(1, slides.livetime / slides.planned);
    text("progress-note", progress.say(run));
  }
  document.title = `${run.name} · chirpwatch`;
}

// Offer the rates that the background reaches; keep the choice, or take the lowest.
function offerRates(lowest) {
  const select = byId("far");
  const chosen = select.dataset.chosen;
  const before = select.value;
  options(select, RATES.map(([name, rate]) => {
    const out = lowest === null || rate < lowest;
    const option = new Option(out ? `${name} (out of reach)` : name, rate);
    option.disabled = out;
    return option;
  }));
  const open = [...select.options].filter((option) => !option.disabled);
  select.value = (open.find((option) => chosen && option.value === before) ?? open[0] ?? select.options[0]).value;
  return open.length ? Number(select.value) : null;
}

// Offer what all injections have; keep the choice if it is among them.
function offerParameters(names) {
  const select = byId("by");
  for (const option of select.options) option.disabled = !names.includes(option.value);
  if (select.selectedOptions[0].disabled) select.value = "snr";
  return select.value;
}

function drawAll() {
  if (!shown) return;
  const { ifar, candidates, drift, injections, efficiency, volumes } = shown;
  drawIfar(byId("ifar"), ifar, candidates);
  drawDrift(byId("drift"), drift);
  if (injections) {
    drawEfficiency(byId("efficiency"), efficiency);
    showBins(injections, efficiency);
    drawPlane(byId("plane"), injections);
    const there = placed(injections).length;
    byId("plane-note").textContent = there && there < injections.total
      ? `${there} of ${injections.total} are drawn, the earliest.` : "";
  } else {
    for (const id of ["efficiency", "plane"]) {
      message(byId(id), "Needs injections, and background that reaches one of these rates.");
    }
    hideBins();
  }
  const { text } = byId("by").selectedOptions[0];
  byId("bins-by").textContent = efficiency?.unit ? `${text}, ${efficiency.unit}` : text;
  showVolumes(volumes);
}

// A look that a newer one has overtaken must not draw: it may be of another rate or run.
async function load(run, current) {
  const base = `/v1/runs/${run.id}`;
  const [background, candidates] = await Promise.all([
    get(`${base}/background`, { limit: SLIDES, offset: state.slide }), get(`${base}/candidates`, { limit: LOUDEST }),
  ]);
  // Only what the background can answer is asked.
  if (!current()) return;
  const lowest = background.lowest_far_per_year;
  byId("lowest").textContent = lowest === null ? "–" : `${number(lowest)} / yr`;
  byId("lowest-note").textContent = lowest === null ? "needs timeslides" : `one per ${duration(YEAR / lowest)}`;
  const rate = offerRates(lowest);
  const asked = rate === null || !run.injections.streams ? null : { far_per_year: rate };
  const [ifar, drift, injections] = await Promise.all([
    lowest === null ? null : get(`${base}/ifar`),
    lowest === null ? null : get(`${base}/drift`),
    asked && get(`${base}/injections`, { ...asked, limit: MARKS }),
  ]);
  if (!current()) return;
  const by = injections && offerParameters(injections.parameters);
  const [efficiency, volumes] = await Promise.all([
    injections && get(`${base}/efficiency`, { ...asked, by }),
    injections?.drawn_in_volume ? get(`${base}/volume`, asked) : null,
  ]);
  if (!current()) return;
  shown = { run, asked, ifar, candidates, drift, injections, efficiency, volumes };
  showCandidates(run.id, candidates, (time) => stream.centre(time));
  showSlides(background, state.slide);
  showDrift(drift);
  drawAll();
  await stream.setRun(run);
}

async function look() {
  const turn = ++state.turn;
  const current = () => turn === state.turn;
  const { runs } = await get("/v1/runs", { limit: 200 });
  if (!current()) return;
  const select = byId("run");
  // Without a choice, the wall shows the newest run.
  if (!state.pinned && runs.length) state.run = runs[0].id;
  byId("empty").hidden = runs.length > 0;
  byId("content").hidden = byId("picker").hidden = !runs.length;
  if (!state.run) return;
  const run = await get(`/v1/runs/${state.run}`);
  if (!current()) return;
  // An old one is not in the list.
  if (!runs.some(({ id }) => id === run.id)) runs.push(run);
  options(select, runs.map((one) => new Option(one.name, one.id)));
  select.value = run.id;
  const seen = `${run.id} ${run.revision}`;
  if (seen === state.revision) return;
  showNumbers(run);
  await load(run, current);
  if (!current()) return;
  state.revision = seen;
  document.body.dataset.revision = run.revision;
}

function failed(error) {
  // What is drawn may be half of the new.
  state.revision = null;
  badge("link", `not updating: ${error.message}`, "bad");
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

// Look again, however often this is asked for in the meantime.
let due = null;
function soon(wait = INTERVAL) {
  due ??= setTimeout(() => {
    due = null;
    // A look is overtaken by who asks for something else, never by the clock.
    if (state.looking) soon();
    else lookOrSay();
  }, wait);
}

function ask() {
  state.revision = null;
  lookOrSay();
}

byId("run").addEventListener("change", (event) => {
  Object.assign(state, { run: event.target.value, pinned: true, slide: 0 });
  history.replaceState(null, "", `?run=${encodeURIComponent(state.run)}`);
  ask();
});
byId("far").addEventListener("change", (event) => {
  event.target.dataset.chosen = "yes";
  ask();
});
byId("by").addEventListener("change", ask);
for (const button of document.querySelectorAll("[data-slides]")) {
  button.addEventListener("click", () => {
    state.slide = Math.max(0, state.slide + SLIDES * Number(button.dataset.slides));
    ask();
  });
}
for (const button of document.querySelectorAll("[data-move]")) {
  button.addEventListener("click", () => move(stream, button.dataset.move));
}
const TABLES = { drift: driftTable, ifar: ifarTable, efficiency: efficiencyTable, plane: planeTable };
offerDownloads(() => (shown ? shown.run.id : "none"), (id) => shown && (id === "stream" ? streamTable(stream) : TABLES[id](shown)), failed);
onResize(byId("ifar"), drawAll);
// A run that has come to a stop sends nothing that would say so.
setInterval(() => {
  if (shown?.run.background.planned) byId("progress-note").textContent = progress.say(shown.run);
}, CLOCK);
listen(() => soon(), () => soon());
lookOrSay();
