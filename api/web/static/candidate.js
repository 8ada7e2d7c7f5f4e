// The page of one candidate: its strain, Q-transforms, and the scores around it.
/** @import { QTransform, ScoresAnswer, Whitened } from "../openapi.d.ts" */
/** @import { Table } from "./data.js" */
/** @import { Box, Pair } from "./draw.js" */
import { get, listen, nanoseconds, reason } from "./api.js";
import { all, byId, datum, makeCanvas } from "./dom.js";
import { offerDownloads } from "./download.js";
import {
  el,
  labelled,
  linear,
  log,
  message,
  numbered,
  onResize,
  path,
  plot,
  ticks,
  xAxis,
  yAxis,
} from "./draw.js";
import { duration, number, utc } from "./units.js";

const [run, time, ifos] = ["run", "time", "ifos"].map(datum);
const lag = Number(datum("lag")); // from the middle of the whitened kernel to its score's time, s
const candidate = { run_id: run, time_ns: BigInt(time) };
const merger = Number(time) / 1e9; // GPS s
const AROUND = 20; // of the scores, to either side, s
const STYLES = ["zero-lag", "injected", "background"]; // of the detectors' lines
/** @type {Record<string, Table>} */
const tables = {}; // by the id of a plot
/** @type {Record<string, () => void>} */
const redraw = {}; // likewise

/**
 * Draw an answer, and again when the width changes; say why if it does not come.
 * @template A
 * @param {string} id
 * @param {Promise<A>} coming
 * @param {(host: HTMLElement, answer: A) => void} draw
 */
async function show(id, coming, draw) {
  const host = byId(id);
  try {
    const answer = await coming;
    redraw[id] = () => draw(host, answer);
    redraw[id]();
  } catch (error) {
    // What is drawn already stays.
    if (!redraw[id]) message(host, reason(error));
  }
}

/**
 * The axis of time after the merger, drawn, and its scale.
 * @param {Box} box
 * @param {number} start
 * @param {number} stop
 */
function timeAxis(box, start, stop) {
  const x = linear([start, stop], [box.left, box.right]);
  const marks = labelled(ticks(start, stop, (box.right - box.left) / 80));
  box.svg.append(xAxis(box, x, marks, "seconds after the merger"));
  return x;
}

/**
 * The line at the merger.
 * @param {Box} box
 * @param {number} x
 */
const mergerLine = (box, x) =>
  el("line", { class: "cursor", x1: x, x2: x, y1: box.top, y2: box.bottom });

/**
 * @param {HTMLElement} host
 * @param {Whitened} answer
 */
function drawWhitened(host, { start, sample_rate: rate, strain }) {
  const names = Object.keys(strain);
  const times = strain[names[0]].map((_, i) => start + i / rate);
  tables[host.id] = {
    columns: ["seconds_after_merger", ...names.map((ifo) => `${ifo}_sigma`)],
    rows: times.map((t, i) => [t.toFixed(6), ...names.map((ifo) => strain[ifo][i])]),
  };
  const lane = host.clientWidth < 500 ? 100 : 130;
  const gap = 30;
  const height = names.length * (lane + gap) + 44;
  const margin = { left: 44, right: 10, top: 24, bottom: 44 };
  const label = `Whitened strain of ${names.join(" and ")} around the merger`;
  const box = plot(host, height, margin, label);
  const x = timeAxis(box, start, start + times.length / rate);
  const most = Math.max(4, ...names.flatMap((ifo) => strain[ifo].map(Math.abs)));
  names.forEach((ifo, k) => {
    const top = box.top + k * (lane + gap);
    const inner = { ...box, top, bottom: top + lane };
    const y = linear([-most, most], [inner.bottom, inner.top]);
    /** @type {Pair[]} */
    const points = strain[ifo].map((value, i) => [x(times[i]), y(value)]);
    const style = STYLES[k % STYLES.length];
    box.svg.append(
      yAxis(inner, y, numbered(ticks(-most, most, 4)), `${ifo}, σ`),
      el("path", { class: `series ${style}`, d: path(points) }),
    );
  });
  box.svg.append(mergerLine(box, x(0)));
  host.replaceChildren(box.svg);
}

// Colours from dark to bright, of even steps in lightness (after viridis).
const COLOURS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

/** @param {number} share */
function colour(share) {
  const place = Math.min(1, Math.max(0, share)) * (COLOURS.length - 1);
  const low = Math.min(COLOURS.length - 2, Math.floor(place));
  return COLOURS[low].map((c, i) => c + (COLOURS[low + 1][i] - c) * (place - low));
}

/**
 * @param {number[][]} energy
 * @param {number} most
 */
function picture(energy, most) {
  const [columns, rows] = [energy.length, energy[0].length];
  const { canvas, context } = makeCanvas(columns, rows);
  const pixels = context.createImageData(columns, rows);
  energy.forEach((column, i) => {
    column.forEach((value, j) => {
      const place = 4 * ((rows - 1 - j) * columns + i);
      pixels.data.set([...colour(value / most), 255], place);
    });
  });
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

/**
 * @param {HTMLElement} host
 * @param {QTransform} answer
 */
function drawTransform(host, { ifo, start, step, frequencies, energy }) {
  tables[host.id] = {
    columns: ["seconds_after_merger", ...frequencies.map((f) => `energy_at_${f}_Hz`)],
    rows: energy.map((column, i) => [(start + (i + 0.5) * step).toFixed(5), ...column]),
  };
  const narrow = host.clientWidth < 500;
  const largest = Math.max(...energy.flat());
  const most = Math.max(25, largest);
  const margin = { left: 48, right: 10, top: 26, bottom: 44 };
  const label = `Q-transform of ${ifo} around the merger; ` +
    `largest normalised energy ${number(largest)}`;
  const box = plot(host, narrow ? 230 : 300, margin, label);
  const [low, high] = [frequencies[0], frequencies[frequencies.length - 1]];
  const y = log([low, high], [box.bottom, box.top]);
  timeAxis(box, start, start + step * energy.length);
  const marks = [20, 50, 100, 200, 500, 1000].filter((f) => f >= low && f <= high);
  const scale = `${narrow ? "" : "normalised "}energy 0 to ${number(most)}`;
  box.svg.append(
    yAxis(box, y, numbered(marks), "Frequency, Hz"),
    el("image", {
      href: picture(energy, most),
      x: box.left,
      y: box.top,
      width: box.right - box.left,
      height: box.bottom - box.top,
      preserveAspectRatio: "none",
    }),
    el("text", { x: box.right, y: box.top - 8, "text-anchor": "end" }, scale),
  );
  host.replaceChildren(box.svg);
}

/**
 * Times are those of the plot: the middle of the kernel behind a score.
 * @param {HTMLElement} host
 * @param {ScoresAnswer} scores
 */
function drawScores(host, { time: times, maximum, bucket }) {
  tables[host.id] = {
    columns: ["gps_time_s", "score"],
    rows: times.map((t, i) => [(t - lag).toFixed(4), maximum[i]]),
  };
  const values = maximum.filter((value) => value !== null);
  if (!values.length) {
    message(host, "No valid scores here.");
    return;
  }
  const margin = { left: 44, right: 10, top: 24, bottom: 44 };
  const box = plot(host, 220, margin, "Scores around the candidate");
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low || 1) * 0.06;
  const y = linear([low - room, high + room], [box.bottom, box.top]);
  const x = timeAxis(box, -AROUND, AROUND);
  box.svg.append(yAxis(box, y, numbered(ticks(low, high, 5)), "Score (logit)"));
  /** @type {Pair[]} */
  let piece = [];
  const pieces = [piece];
  times.forEach((t, i) => {
    const [after, score] = [t - lag - merger, maximum[i]];
    if (Math.abs(after) > AROUND) return;
    if (score === null || t - times[i - 1] > 1.5 * bucket) pieces.push(piece = []);
    if (score !== null) piece.push([x(after), y(score)]);
  });
  for (const points of pieces) {
    box.svg.append(el("path", { class: "series zero-lag", d: path(points) }));
  }
  box.svg.append(mergerLine(box, x(0)));
  host.replaceChildren(box.svg);
}

/**
 * Write numbers as people read them, in place of those for readers without scripts.
 * @param {ParentNode} part
 */
function write(part) {
  for (const node of all("[data-number]", part)) {
    node.textContent = number(Number(node.dataset.number));
  }
  for (const node of all("[data-seconds]", part)) {
    node.textContent = duration(Number(node.dataset.seconds));
  }
}

/** @param {unknown} error */
function failed(error) {
  const text = `not updating: ${reason(error)}`;
  Object.assign(byId("link"), { textContent: text, className: "badge bad", hidden: false });
}

function showScores() {
  const scores = get("/v1/runs/{run_id}/scores", {
    run_id: run,
    kind: "zero_lag",
    start_ns: nanoseconds(merger - AROUND),
    stop_ns: nanoseconds(merger + AROUND + 2),
    points: 2000,
  });
  return show("scores", scores, drawScores);
}

// Get the page as the service would make it now, and replace its parts that change.
async function update() {
  try {
    const response = await fetch(location.href);
    if (!response.ok) throw new Error(`status ${response.status}`);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (page.body.dataset.ifos !== ifos) {
      // Its strain came, and with it other plots.
      location.reload();
      return;
    }
    for (const part of all("[data-live]")) {
      const next = page.querySelector(`[data-live="${part.dataset.live}"]`);
      if (next === null) throw new Error("the page has other parts");
      document.adoptNode(next);
      write(next);
      if (!part.isEqualNode(next)) part.replaceWith(next);
    }
    await showScores();
  } catch (error) {
    failed(error);
  }
}

const INTERVAL = 2000; // least time between two updates, ms
let revision = Number(datum("revision"));
/** @type {number | undefined} */
let due;

byId("utc").textContent = `${utc(merger, 3)} UTC`;
write(document);
const share = byId("share");
share.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    share.textContent = "Copied";
  } catch {
    // Browsers lend the clipboard to pages of secure addresses alone.
    const address = byId("address", HTMLInputElement);
    Object.assign(address, { value: location.href, hidden: false });
    address.select();
    share.textContent = "Copy this:";
  }
});
for (const host of all(".plot[id]")) {
  message(host, "…");
  onResize(host, () => redraw[host.id]?.());
}
offerDownloads(() => `${run}-${time}`, (id) => tables[id], failed);
listen((revisions) => {
  byId("link").hidden = true;
  if (!(run in revisions) || revisions[run] === revision) return;
  revision = revisions[run];
  due ??= setTimeout(() => {
    due = undefined;
    update();
  }, INTERVAL);
}, () => failed(new Error("the API is not heard")));
/** @param {string[]} detectors */
function showStrain(detectors) {
  const base = "/v1/runs/{run_id}/candidates/{time_ns}";
  return Promise.all([
    show("whitened", get(`${base}/whitened`, candidate), drawWhitened),
    ...detectors.map((ifo) =>
      show(`q-${ifo}`, get(`${base}/q-transform/{ifo}`, { ...candidate, ifo }), drawTransform)
    ),
  ]);
}
await Promise.all([showScores(), ifos && showStrain(ifos.split(","))]);
document.body.dataset.drawn = "yes";
