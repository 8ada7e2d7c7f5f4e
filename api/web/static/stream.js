// The score streams over a common time axis, with what happened in them.
import { diamond, el, labelled, linear, message, onResize, path, plot, ticks, triangle, xAxis, yAxis } from "./draw.js";
import { fixed, number, utc } from "./units.js";
import { navigate } from "./navigate.js";

const RAIL = 20; // room for markers above a lane, px
const GAP = 34; // between two lanes, px
const UNITS = [[86400, "days"], [3600, "hours"], [60, "minutes"], [1, "seconds"]];
const FAR_AWAY = 1000; // units from the run's start, where labels begin anew nearby
const SHORTEST = 1; // view, s
export const CANDIDATES = 10; // that are marked, the loudest in view

export class StreamPlot {
  // `ask.scores(run, kind, start, stop, points)` fetches scores of a stretch of GPS time,
  // `ask.marks(run, start, stop)` its candidates and injections; `ask.failed(error)` is
  // told why one of them did not come.
  constructor(host, readout, ask) {
    Object.assign(this, { host, readout, ask, view: null, lanes: [], candidates: [], injections: [] });
    this.hint = readout.textContent;
    navigate(host, this);
    onResize(host, () => this.refreshOrSay());
    host.addEventListener("pointermove", (event) => this.point(event));
    host.addEventListener("pointerleave", () => this.leave());
  }

  // Scores are drawn at the middle of the whitened kernel they look at, so that a peak
  // stands where the merger is.
  async setRun(run) {
    if (run.id !== this.run?.id) Object.assign(this, { view: null, lanes: [], candidates: [], injections: [] });
    this.run = run;
    this.lag = (run.geometry.fduration + run.geometry.kernel_length) / 2;
    this.extent = run.start === null ? null : [run.start - this.lag, run.stop - this.lag];
    await this.refresh();
  }

  get range() {
    return this.view ?? this.extent;
  }

  setView(view) {
    if (!this.extent) return;
    const [low, high] = this.extent;
    const length = Math.min(Math.max(view[1] - view[0], SHORTEST), high - low);
    const start = Math.min(Math.max((view[0] + view[1] - length) / 2, low), high - length);
    this.view = length >= high - low ? null : [start, start + length];
    this.draw();
    this.tell();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refreshOrSay(), 120);
  }

  centre(time, length = 40) {
    this.setView([time - length / 2, time + length / 2]);
    this.host.scrollIntoView({ block: "center", behavior: "smooth" });
  }

  refreshOrSay() {
    this.refresh().catch(this.ask.failed);
  }

  async refresh() {
    if (!this.extent) return message(this.host, "No scores yet.");
    const { run } = this;
    const [start, stop] = this.range;
    const points = Math.max(200, Math.round(this.host.clientWidth * 1.2));
    const wanted = [["zero_lag", "zero-lag", "zero-lag"], ["injections", "injected", "with injections"]];
    const turn = (this.turn = {});
    const [marks, ...lanes] = await Promise.all([
      this.ask.marks(run, start, stop),
      ...wanted.filter(([kind]) => run[kind].chunks).map(async ([kind, style, name]) => ({
        kind, style, name, scores: await this.ask.scores(run, kind, start + this.lag, stop + this.lag, points),
      })),
    ]);
    // A newer question overtook this one.
    if (turn !== this.turn) return;
    Object.assign(this, { lanes, ...marks });
    this.draw();
    this.tell();
  }

  draw() {
    if (!this.extent) return message(this.host, "No scores yet.");
    if (!this.lanes.length) return message(this.host, "No scores of zero-lag or injections.");
    const narrow = this.host.clientWidth < 500;
    const laneHeight = (narrow ? 110 : 150) + RAIL;
    const box = plot(this.host, this.lanes.length * (laneHeight + GAP) + 34,
      { left: 40, right: 8, top: 24, bottom: 44 },
      `Scores of ${this.lanes.map((lane) => lane.name).join(" and ")} against time`);
    const [start, stop] = this.range;
    const x = linear([start, stop], [box.left, box.right]);
    Object.assign(this, { x, box });
    const [unit, name] = UNITS.find(([size]) => stop - start >= 3 * size) ?? UNITS.at(-1);
    let origin = Math.floor(this.run.start);
    if (stop - origin > FAR_AWAY * unit) {
      const leap = (FAR_AWAY / 10) * unit;
      origin += Math.floor((start - origin) / leap) * leap;
    }
    const count = (box.right - box.left) / 90;
    // Tens of minutes in halves and quarters of an hour, as on a clock.
    const steps = unit === 60 && (stop - start) / count > 420 ? [1, 1.5, 3, 6, 10] : undefined;
    const marks = labelled(ticks((start - origin) / unit, (stop - origin) / unit, count, steps))
      .map(([value, text]) => [origin + value * unit, text]);
    const title = narrow ? `${name} after GPS ${origin}`
      : `${name} after GPS ${origin} (${utc(origin)} UTC)`;
    const id = "plot-area";
    box.svg.append(el("defs", {},
      el("clipPath", { id }, el("rect", { x: box.left, y: 0, width: box.right - box.left, height: box.bottom })),
      el("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        el("line", { class: "hatch-line", x1: 0, x2: 0, y1: 0, y2: 7 }))));
    box.svg.append(xAxis(box, x, marks, title));
    this.lanes.forEach((lane, i) => {
      const top = box.top + i * (laneHeight + GAP);
      const inner = { ...box, top, bottom: top + laneHeight };
      box.svg.append(this.lane(inner, x, lane, `url(#${id})`));
    });
    box.svg.append((this.cursor = el("line", { class: "cursor", y1: box.top, y2: box.bottom, visibility: "hidden" })));
    this.host.replaceChildren(box.svg);
  }

  lane(box, x, { kind, style, name, scores }, clip) {
    const values = [...scores.minimum, ...scores.maximum].filter((value) => value !== null);
    let [low, high] = [Math.min(...values, 0), Math.max(...values, 1)];
    if (!values.length) [low, high] = [0, 1];
    const room = (high - low) * 0.05;
    const y = linear([low - room, high + room], [box.bottom, box.top + RAIL]);
    const group = el("g", { class: "lane", "data-kind": kind });
    group.append(yAxis(box, y, ticks(low, high, 5).map((v) => [v, number(v)]), `Score (logit), ${name}`));
    const drawn = el("g", { "clip-path": clip });
    const shade = (from, to, attributes) => drawn.append(el("rect", {
      x: x(from - this.lag), width: Math.max(1, x(to) - x(from)), y: box.top, height: box.bottom - box.top, ...attributes,
    }));
    // Before, between and after what was received.
    const ends = [this.range[0] + this.lag, ...scores.received.flatMap(({ start, stop }) => [start, stop]), this.range[1] + this.lag];
    for (let i = 0; i < ends.length; i += 2) {
      if (ends[i + 1] > ends[i]) shade(ends[i], ends[i + 1], { class: "absent" });
    }
    for (const { start, stop } of scores.invalid) shade(start, stop, { class: "invalid", fill: "url(#hatch)" });
    for (const piece of pieces(scores)) {
      const at = (i, value) => [x(scores.time[i] - this.lag), y(value[i])];
      const upper = piece.map((i) => at(i, scores.maximum));
      const lower = piece.map((i) => at(i, scores.minimum)).reverse();
      const thinned = piece.some((i) => scores.minimum[i] !== scores.maximum[i]);
      drawn.append(el("path", thinned
        ? { class: `area ${style}`, d: path([...upper, ...lower]) + "Z" }
        : { class: `series ${style}`, d: path(upper) }));
    }
    drawn.append(...(kind === "zero_lag" ? this.candidateMarks(box, x) : this.injectionMarks(box, x)));
    group.append(drawn, el("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
    return group;
  }

  // Of many candidates the quiet ones would hide the loud: the loudest in view.
  candidateMarks(box, x) {
    const [start, stop] = this.range;
    const shown = this.candidates.filter(({ time }) => time >= start && time <= stop).slice(0, CANDIDATES);
    return shown.reverse().map(({ time, statistic, rank }) => el("g", {},
      el("title", {}, `Candidate${rank ? ` ${rank}` : ""}: statistic ${fixed(statistic)}, GPS ${time.toFixed(3)} s`),
      rank <= 3 ? el("line", { class: "stem", x1: x(time), x2: x(time), y1: box.top + 16, y2: box.bottom }) : "",
      el("path", { class: "candidate", d: diamond(x(time), box.top + 9, rank <= 3 ? 7 : 5) }),
      rank <= 3 ? el("text", { class: "rank", x: x(time) + 9, y: box.top + 13 }, rank) : ""));
  }

  injectionMarks(box, x) {
    const [start, stop] = this.range;
    const size = this.host.clientWidth < 500 ? 3.5 : 5;
    return this.injections.filter(({ time }) => time >= start && time <= stop)
      .map(({ time, snr, reason }) => el("path", {
        class: reason === "found" ? "found" : "missed", d: triangle(x(time), box.top + 9, size),
      }, el("title", {}, `Injection, network SNR ${number(snr)}, ${reason.replace("_", " ")}, GPS ${time.toFixed(3)} s`)));
  }

  point(event) {
    if (!this.x || !this.cursor) return;
    const place = event.clientX - this.host.getBoundingClientRect().left;
    if (place < this.box.left || place > this.box.right) return this.leave();
    const time = this.x.invert(place);
    const parts = this.lanes.map(({ name, scores }) => {
      const i = nearest(scores.time, time + this.lag);
      if (!(Math.abs(scores.time[i] - time - this.lag) < 1.5 * scores.bucket)) return `${name} no data`;
      const value = scores.maximum[i];
      const most = value !== scores.minimum[i] ? "at most " : "";
      return `${name} ${value === null ? "not valid" : most + fixed(value)}`;
    });
    this.readout.textContent = `GPS ${time.toFixed(2)} s · ${utc(time, 1)} UTC · ${parts.join(" · ")}`;
    this.cursor.setAttribute("x1", place);
    this.cursor.setAttribute("x2", place);
    this.cursor.setAttribute("visibility", "visible");
  }

  leave() {
    this.cursor?.setAttribute("visibility", "hidden");
    this.tell();
  }

  // What is in view, for who has no pointer.
  tell() {
    if (!this.view) return void (this.readout.textContent = this.hint);
    const [start, stop] = this.view;
    const parts = this.lanes.map(({ name, scores }) => {
      let best = null;
      scores.maximum.forEach((value, i) => {
        if (value !== null && (best === null || value > scores.maximum[best])) best = i;
      });
      return best === null ? `${name} no data`
        : `${name} at most ${fixed(scores.maximum[best])} at GPS ${(scores.time[best] - this.lag).toFixed(2)} s`;
    });
    this.readout.textContent = `GPS ${start.toFixed(1)} to ${stop.toFixed(1)} s · ${parts.join(" · ")}`;
  }
}

// Runs of points that have valid scores.
function pieces({ minimum, time, bucket }) {
  const runs = [];
  let before = null;
  minimum.forEach((value, i) => {
    if (value === null) before = null;
    else if (before !== null && time[i] - time[before] < 2.5 * bucket) runs.at(-1).push((before = i));
    else runs.push([(before = i)]);
  });
  return runs;
}

function nearest(sorted, value) {
  let [low, high] = [0, sorted.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle;
    else high = middle;
  }
  return value - sorted[low] < sorted[high] - value ? low : high;
}
