// The page of one candidate: its strain, Q-transforms, and the scores around it.
import { byId, get, listen, nanoseconds } from "./api.js";
import { offerDownloads } from "./download.js";
import { el, labelled, linear, log, message, onResize, path, plot, ticks, xAxis, yAxis } from "./draw.js";
import { duration, number, utc } from "./units.js";

const { run, time, ifos, lag } = document.body.dataset;
const base = `/v1/runs/${run}/candidates/${time}`;
const merger = Number(time) / 1e9; // GPS s
const AROUND = 20; // of the scores, to either side, s
const STYLES = ["zero-lag", "injected", "background"]; // of the detectors' lines
const tables = {};
const redraw = {}; // by the id of a plot

// Draw what was fetched, and again when the space changes; say why if it is not there.
async function show(id, fetching, draw) {
  const host = byId(id);
  try {
    const answer = await fetching;
    redraw[id] = () => draw(host, answer);
    redraw[id]();
  } catch (error) {
    // What is drawn already stays.
    if (!redraw[id]) message(host, error.message);
  }
}

function timeAxis(box, start, stop) {
  const x = linear([start, stop], [box.left, box.right]);
  const marks = labelled(ticks(start, stop, (box.right - box.left) / 80));
  return [x, xAxis(box, x, marks, "seconds after the merger")];
}

function drawWhitened(host, { start, sample_rate: rate, strain }) {
  const names = Object.keys(strain);
  const size = strain[names[0]].length;
  tables.whitened = {
    columns: ["seconds_after_merger", ...names.map((ifo) => `${ifo}_sigma`)],
    rows: [...Array(size).keys()].map((i) => [(start + i / rate).toFixed(6), ...names.map((ifo) => strain[ifo][i])]),
  };
  const lane = host.clientWidth < 500 ? 100 : 130;
  const gap = 30;
  const box = plot(host, names.length * (lane + gap) + 44, { left: 44, right: 10, top: 24, bottom: 44 },
    `Whitened strain of ${names.join(" and ")} around the merger`);
  const [x, axis] = timeAxis(box, start, start + size / rate);
  box.svg.append(axis);
  const most = Math.max(4, ...names.flatMap((ifo) => strain[ifo].map(Math.abs)));
  names.forEach((ifo, k) => {
    const top = box.top + k * (lane + gap);
    const inner = { ...box, top, bottom: top + lane };
    const y = linear([-most, most], [inner.bottom, inner.top]);
    const points = strain[ifo].map((value, i) => [x(start + i / rate), y(value)]);
    box.svg.append(
      yAxis(inner, y, ticks(-most, most, 4).map((v) => [v, number(v)]), `${ifo}, σ`),
      el("path", { class: `series ${STYLES[k % STYLES.length]}`, d: path(points) }),
    );
  });
  box.svg.append(el("line", { class: "cursor", x1: x(0), x2: x(0), y1: box.top, y2: box.bottom }));
  host.replaceChildren(box.svg);
}

// Colours from dark to bright, of even steps in lightness (after viridis).
const COLOURS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function colour(share) {
  const place = Math.min(1, Math.max(0, share)) * (COLOURS.length - 1);
  const low = Math.min(COLOURS.length - 2, Math.floor(place));
  return COLOURS[low].map((c, i) => c + (COLOURS[low + 1][i] - c) * (place - low));
}

function picture(energy, most) {
  const [columns, rows] = [energy.length, energy[0].length];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  const brush = canvas.getContext("2d");
  const pixels = brush.createImageData(columns, rows);
  energy.forEach((column, i) => column.forEach((value, j) => {
    pixels.data.set([...colour(value / most), 255], 4 * ((rows - 1 - j) * columns + i));
  }));
  brush.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

function drawTransform(host, { ifo, start, step, frequencies, energy }) {
  tables[host.id] = {
    columns: ["seconds_after_merger", ...frequencies.map((f) => `energy_at_${f}_Hz`)],
    rows: energy.map((column, i) => [(start + (i + 0.5) * step).toFixed(5), ...column]),
  };
  const most = Math.max(25, ...energy.flat());
  const box = plot(host, host.clientWidth < 500 ? 230 : 300, { left: 48, right: 10, top: 26, bottom: 44 },
    `Q-transform of ${ifo} around the merger; largest normalised energy ${number(Math.max(...energy.flat()))}`);
  const [low, high] = [frequencies[0], frequencies.at(-1)];
  const y = log([low, high], [box.bottom, box.top]);
  const [x, axis] = timeAxis(box, start, start + step * energy.length);
  const marks = [20, 50, 100, 200, 500, 1000].filter((f) => f >= low && f <= high).map((f) => [f, number(f)]);
  box.svg.append(
    axis, yAxis(box, y, marks, "Frequency, Hz"),
    el("image", {
      href: picture(energy, most), x: box.left, y: box.top, width: box.right - box.left,
      height: box.bottom - box.top, preserveAspectRatio: "none",
    }),
    el("text", { x: box.right, y: box.top - 8, "text-anchor": "end" }, `${host.clientWidth < 500 ? "" : "normalised "}energy 0 to ${number(most)}`),
  );
  host.replaceChildren(box.svg);
}

function drawScores(host, { time: times, maximum, bucket }) {
  // Times are those of the plot: of the middle of what a score looks at.
  tables.scores = { columns: ["gps_time_s", "score"], rows: times.map((t, i) => [(t - lag).toFixed(4), maximum[i]]) };
  const values = maximum.filter((value) => value !== null);
  if (!values.length) return message(host, "No valid scores here.");
  const box = plot(host, 220, { left: 44, right: 10, top: 24, bottom: 44 }, "Scores around the candidate");
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low || 1) * 0.06;
  const y = linear([low - room, high + room], [box.bottom, box.top]);
  const [x, axis] = timeAxis(box, -AROUND, AROUND);
  box.svg.append(axis, yAxis(box, y, ticks(low, high, 5).map((v) => [v, number(v)]), "Score (logit)"));
  let piece = [];
  const pieces = [piece];
  times.forEach((t, i) => {
    if (Math.abs(t - lag - merger) > AROUND) return;
    if (maximum[i] === null || t - times[i - 1] > 1.5 * bucket) pieces.push((piece = []));
    if (maximum[i] !== null) piece.push([x(t - lag - merger), y(maximum[i])]);
  });
  for (const points of pieces) box.svg.append(el("path", { class: "series zero-lag", d: path(points) }));
  box.svg.append(el("line", { class: "cursor", x1: x(0), x2: x(0), y1: box.top, y2: box.bottom }));
  host.replaceChildren(box.svg);
}

// Numbers as people read them, in place of what stands there for who has no scripts.
function write(part) {
  for (const node of part.querySelectorAll("[data-number]")) node.textContent = number(Number(node.dataset.number));
  for (const node of part.querySelectorAll("[data-seconds]")) node.textContent = duration(Number(node.dataset.seconds));
}

function failed(error) {
  Object.assign(byId("link"), { textContent: `not updating: ${error.message}`, className: "badge bad", hidden: false });
}

const showScores = () => show("scores", get(`/v1/runs/${run}/scores`, {
  kind: "zero_lag", start_ns: nanoseconds(merger - AROUND), stop_ns: nanoseconds(merger + AROUND + 2), points: 2000,
}), drawScores);

// The page as the service would make it now; what of it moves takes the place of the old.
async function update() {
  try {
    const response = await fetch(location.href);
    if (!response.ok) throw new Error(`status ${response.status}`);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    // Its strain came, and with it other plots.
    if ((page.body.dataset.ifos ?? "") !== (ifos ?? "")) return location.reload();
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = document.adoptNode(page.querySelector(`[data-live="${part.dataset.live}"]`));
      write(next);
      if (!part.isEqualNode(next)) part.replaceWith(next);
    }
    return await showScores();
  } catch (error) {
    return failed(error);
  }
}

const INTERVAL = 2000; // least time between two updates, ms
let { revision } = document.body.dataset;
let due = null;

byId("utc").textContent = `${utc(merger, 3)} UTC`;
write(document);
byId("share").addEventListener("click", async ({ target }) => {
  try {
    await navigator.clipboard.writeText(location.href);
    target.textContent = "Copied";
  } catch {
    // Browsers lend the clipboard to pages of secure addresses alone.
    Object.assign(byId("address"), { value: location.href, hidden: false });
    byId("address").select();
    target.textContent = "Copy this:";
  }
});
for (const host of document.querySelectorAll(".plot[id]")) {
  message(host, "…");
  onResize(host, () => redraw[host.id]?.());
}
offerDownloads(() => `${run}-${time}`, (id) => tables[id], failed);
listen((revisions) => {
  byId("link").hidden = true;
  if (!(run in revisions) || String(revisions[run]) === revision) return;
  revision = String(revisions[run]);
  due ??= setTimeout(() => {
    due = null;
    update();
  }, INTERVAL);
}, () => failed(new Error("the API is not heard")));
await Promise.all([
  showScores(),
  ...(ifos ? [
    show("whitened", get(`${base}/whitened`), drawWhitened),
    ...ifos.split(",").map((ifo) => show(`q-${ifo}`, get(`${base}/q-transform/${ifo}`), drawTransform)),
  ] : []),
]);
document.body.dataset.drawn = "yes";
