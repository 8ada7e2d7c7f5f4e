// The score streams over a common time axis, with what happened in them.
/** @import { Candidate, Recovered, RunStatus, ScoresAnswer } from "../openapi.d.ts" */
/** @import { Box, Pair, Scale } from "./draw.js" */
import {
  diamond,
  el,
  labelled,
  linear,
  message,
  numbered,
  onResize,
  path,
  plot,
  ticks,
  triangle,
  xAxis,
  yAxis,
} from "./draw.js";
import { navigate } from "./navigate.js";
import { fixed, number, utc } from "./units.js";

const RAIL = 20; // room for markers above a lane, px
const GAP = 34; // between two lanes, px
/** @type {[size: number, name: string][]} */
const UNITS = [[86400, "days"], [3600, "hours"], [60, "minutes"], [1, "seconds"]];
const FAR_AWAY = 1000; // units from the run's start, from which on labels count from nearby
const SHORTEST = 1; // view, s
export const CANDIDATES = 10; // most that are marked, the loudest in view

/**
 * @typedef {"zero_lag" | "injections"} Kind
 * @typedef {{ kind: Kind, style: string, name: string }} LaneStyle
 * @typedef {LaneStyle & { scores: ScoresAnswer }} Lane
 */

/** @type {LaneStyle[]} */
const LANES = [
  { kind: "zero_lag", style: "zero-lag", name: "zero-lag" },
  { kind: "injections", style: "injected", name: "with injections" },
];

/**
 * Candidates, with their rank in the run where it is known, and injections of a stretch of time.
 * @typedef {object} Marks
 * @property {(Candidate & { rank: number | undefined })[]} candidates
 * @property {Recovered[]} injections
 */

/**
 * What the plot gets its data by, for stretches of GPS time, s.
 * @typedef {object} Source
 * @property {(run: RunStatus, kind: Kind, start: number, stop: number, points: number) =>
 *   Promise<ScoresAnswer>} scores
 * @property {(run: RunStatus, start: number, stop: number) => Promise<Marks>} marks
 * @property {(error: unknown) => void} failed Gets the reason why one of them did not come
 */

export class StreamPlot {
  /** @type {RunStatus | undefined} */
  run;
  /**
   * Time that the plot shows, GPS s; null: all that was analysed.
   * @type {Pair | null}
   */
  view = null;
  /**
   * Time that was analysed, GPS s.
   * @type {Pair | null}
   */
  extent = null;
  lag = 0; // from the middle of the whitened kernel to its score's time, s
  /** @type {Lane[]} */
  lanes = [];
  /** @type {Marks} */
  marks = { candidates: [], injections: [] };
  /** @type {Box | undefined} */
  box;
  /** @type {(Scale & { invert: Scale }) | undefined} */
  x;
  /** @type {SVGLineElement | undefined} */
  cursor;
  /** @type {number | undefined} */
  timer;
  turn = 0; // number of the newest refresh

  /**
   * @param {HTMLElement} host
   * @param {HTMLElement} readout
   * @param {Source} source
   */
  constructor(host, readout, source) {
    this.host = host;
    this.readout = readout;
    this.source = source;
    this.hint = readout.textContent;
    navigate(host, this);
    onResize(host, () => this.refreshOrSay());
    host.addEventListener("pointermove", (event) => this.point(event));
    host.addEventListener("pointerleave", () => this.leave());
  }

  /**
   * Scores are drawn at the middle of the whitened kernel they look at, so that a peak
   * stands where the merger is.
   * @param {RunStatus} run
   */
  async setRun(run) {
    if (run.id !== this.run?.id) {
      this.view = null;
      this.lanes = [];
      this.marks = { candidates: [], injections: [] };
    }
    this.run = run;
    this.lag = (run.geometry.fduration + run.geometry.kernel_length) / 2;
    const { start, stop } = run;
    this.extent = start === null || stop === null ? null : [start - this.lag, stop - this.lag];
    await this.refresh();
  }

  get range() {
    return this.view ?? this.extent;
  }

  /** @param {Pair} view */
  setView(view) {
    if (!this.extent) return;
    const [low, high] = this.extent;
    const length = Math.min(Math.max(view[1] - view[0], SHORTEST), high - low);
    const start = Math.min(Math.max((view[0] + view[1] - length) / 2, low), high - length);
    this.view = length >= high - low ? null : [start, start + length];
    this.draw();
    this.describe();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refreshOrSay(), 120);
  }

  /** @param {number} time */
  centre(time, length = 40) {
    this.setView([time - length / 2, time + length / 2]);
    this.host.scrollIntoView({ block: "center", behavior: "smooth" });
  }

  refreshOrSay() {
    this.refresh().catch(this.source.failed);
  }

  async refresh() {
    const { run, range, lag } = this;
    if (!run || !range) {
      message(this.host, "No scores yet.");
      return;
    }
    const [start, stop] = range;
    const points = Math.max(200, Math.round(this.host.clientWidth * 1.2));
    const turn = ++this.turn;
    const [marks, ...lanes] = await Promise.all([
      this.source.marks(run, start, stop),
      ...LANES.filter(({ kind }) => run[kind].chunks).map(async (lane) => ({
        ...lane,
        scores: await this.source.scores(run, lane.kind, start + lag, stop + lag, points),
      })),
    ]);
    // A newer question overtook this one.
    if (turn !== this.turn) return;
    this.lanes = lanes;
    this.marks = marks;
    this.draw();
    this.describe();
  }

  draw() {
    const { run, range } = this;
    if (!run || !range) {
      message(this.host, "No scores yet.");
      return;
    }
    if (!this.lanes.length) {
      message(this.host, "No scores of zero-lag or injections.");
      return;
    }
    const narrow = this.host.clientWidth < 500;
    const laneHeight = (narrow ? 110 : 150) + RAIL;
    const height = this.lanes.length * (laneHeight + GAP) + 34;
    const names = this.lanes.map((lane) => lane.name).join(" and ");
    const margin = { left: 40, right: 8, top: 24, bottom: 44 };
    const box = plot(this.host, height, margin, `Scores of ${names} against time`);
    const [start, stop] = range;
    const x = linear([start, stop], [box.left, box.right]);
    Object.assign(this, { x, box });
    const [unit, name] = UNITS.find(([size]) => stop - start >= 3 * size) ??
      UNITS[UNITS.length - 1];
    let origin = Math.floor(run.start ?? start);
    if (stop - origin > FAR_AWAY * unit) {
      const step = (FAR_AWAY / 10) * unit;
      origin += Math.floor((start - origin) / step) * step;
    }
    const count = (box.right - box.left) / 90;
    // Tens of minutes in halves and quarters of an hour, as on a clock.
    const steps = unit === 60 && (stop - start) / count > 420 ? [1, 1.5, 3, 6, 10] : undefined;
    const values = ticks((start - origin) / unit, (stop - origin) / unit, count, steps);
    const after = `${name} after GPS ${origin}`;
    const axis = xAxis(
      box,
      x,
      labelled(values).map(([value, text]) => [origin + value * unit, text]),
      narrow ? after : `${after} (${utc(origin)} UTC)`,
    );
    const clip = { x: box.left, y: 0, width: box.right - box.left, height: box.bottom };
    const hatch = { width: 7, height: 7, patternTransform: "rotate(45)" };
    const defs = el(
      "defs",
      {},
      el("clipPath", { id: "plot-area" }, el("rect", clip)),
      el(
        "pattern",
        { id: "hatch", ...hatch, patternUnits: "userSpaceOnUse" },
        el("line", { class: "hatch-line", x1: 0, x2: 0, y1: 0, y2: 7 }),
      ),
    );
    const lanes = this.lanes.map((lane, i) => {
      const top = box.top + i * (laneHeight + GAP);
      return this.drawLane({ ...box, top, bottom: top + laneHeight }, x, lane, range);
    });
    const ends = { y1: box.top, y2: box.bottom };
    this.cursor = el("line", { class: "cursor", ...ends, visibility: "hidden" });
    box.svg.append(defs, axis, ...lanes, this.cursor);
    this.host.replaceChildren(box.svg);
  }

  /**
   * @param {Box} box
   * @param {Scale} x
   * @param {Lane} lane
   * @param {Pair} range
   */
  drawLane(box, x, { kind, style, name, scores }, range) {
    const values = [...scores.minimum, ...scores.maximum].filter((value) => value !== null);
    const low = Math.min(...values, 0);
    const high = Math.max(...values, 1);
    const room = (high - low) * 0.05;
    const y = linear([low - room, high + room], [box.bottom, box.top + RAIL]);
    const drawn = el("g", { "clip-path": "url(#plot-area)" });
    /**
     * @param {number} from
     * @param {number} to
     * @param {Record<string, string>} attributes
     */
    const shade = (from, to, attributes) => {
      const [left, width] = [x(from - this.lag), Math.max(1, x(to) - x(from))];
      const height = box.bottom - box.top;
      drawn.append(el("rect", { x: left, width, y: box.top, height, ...attributes }));
    };
    // Before, between and after what was received.
    const ends = [
      range[0] + this.lag,
      ...scores.received.flatMap(({ start, stop }) => [start, stop]),
      range[1] + this.lag,
    ];
    for (let i = 0; i < ends.length; i += 2) {
      if (ends[i + 1] > ends[i]) shade(ends[i], ends[i + 1], { class: "absent" });
    }
    for (const { start, stop } of scores.invalid) {
      shade(start, stop, { class: "invalid", fill: "url(#hatch)" });
    }
    for (const piece of pieces(scores)) {
      /** @type {Pair[]} */
      const upper = piece.map(({ time, maximum }) => [x(time - this.lag), y(maximum)]);
      /** @type {Pair[]} */
      const lower = piece.map(({ time, minimum }) => [x(time - this.lag), y(minimum)]);
      const thinned = piece.some(({ minimum, maximum }) => minimum !== maximum);
      drawn.append(el(
        "path",
        thinned
          ? { class: `area ${style}`, d: path([...upper, ...lower.reverse()]) + "Z" }
          : { class: `series ${style}`, d: path(upper) },
      ));
    }
    const marks = kind === "zero_lag" ? this.candidateMarks : this.injectionMarks;
    drawn.append(...marks.call(this, box, x, range));
    return el(
      "g",
      { class: "lane", "data-kind": kind },
      yAxis(box, y, numbered(ticks(low, high, 5)), `Score (logit), ${name}`),
      drawn,
      el("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    );
  }

  /**
   * The loudest in view: of many candidates the quiet ones would hide the loud.
   * @param {Box} box
   * @param {Scale} x
   * @param {Pair} range
   */
  candidateMarks(box, x, [start, stop]) {
    const shown = this.marks.candidates.filter(({ time }) => time >= start && time <= stop);
    return shown.slice(0, CANDIDATES).reverse().map(({ time, statistic, rank }) => {
      const place = x(time);
      const label = rank === undefined ? "Candidate" : `Candidate ${rank}`;
      const title = `${label}: statistic ${fixed(statistic)}, GPS ${time.toFixed(3)} s`;
      const mark = el("g", {}, el("title", {}, title));
      const loud = rank !== undefined && rank <= 3;
      if (loud) {
        const stem = { x1: place, x2: place, y1: box.top + 16, y2: box.bottom };
        mark.append(el("line", { class: "stem", ...stem }));
      }
      const d = diamond(place, box.top + 9, loud ? 7 : 5);
      mark.append(el("path", { class: "candidate", d }));
      if (loud) {
        mark.append(el("text", { class: "rank", x: place + 9, y: box.top + 13 }, String(rank)));
      }
      return mark;
    });
  }

  /**
   * @param {Box} box
   * @param {Scale} x
   * @param {Pair} range
   */
  injectionMarks(box, x, [start, stop]) {
    const size = this.host.clientWidth < 500 ? 3.5 : 5;
    const shown = this.marks.injections.filter(({ time }) => time >= start && time <= stop);
    return shown.map(({ time, snr, reason }) => {
      const title = `Injection, network SNR ${number(snr)}, ${reason.replace("_", " ")}, ` +
        `GPS ${time.toFixed(3)} s`;
      const d = triangle(x(time), box.top + 9, size);
      const style = reason === "found" ? "found" : "missed";
      return el("path", { class: style, d }, el("title", {}, title));
    });
  }

  /** @param {PointerEvent} event */
  point(event) {
    if (!this.x || !this.box || !this.cursor) return;
    const place = event.clientX - this.host.getBoundingClientRect().left;
    if (place < this.box.left || place > this.box.right) {
      this.leave();
      return;
    }
    const time = this.x.invert(place);
    const parts = this.lanes.map(({ name, scores }) => {
      const i = nearest(scores.time, time + this.lag);
      if (!(Math.abs(scores.time[i] - time - this.lag) < 1.5 * scores.bucket)) {
        return `${name} no data`;
      }
      const value = scores.maximum[i];
      const most = value !== scores.minimum[i] ? "at most " : "";
      return `${name} ${value === null ? "not valid" : most + fixed(value)}`;
    });
    const at = `GPS ${time.toFixed(2)} s · ${utc(time, 1)} UTC`;
    this.readout.textContent = `${at} · ${parts.join(" · ")}`;
    this.cursor.setAttribute("x1", String(place));
    this.cursor.setAttribute("x2", String(place));
    this.cursor.setAttribute("visibility", "visible");
  }

  leave() {
    this.cursor?.setAttribute("visibility", "hidden");
    this.describe();
  }

  // Say what is in view, for users without a pointer.
  describe() {
    if (!this.view) {
      this.readout.textContent = this.hint;
      return;
    }
    const [start, stop] = this.view;
    const parts = this.lanes.map(({ name, scores }) => {
      let [loudest, time] = [-Infinity, NaN];
      scores.maximum.forEach((value, i) => {
        if (value !== null && value > loudest) [loudest, time] = [value, scores.time[i]];
      });
      if (loudest === -Infinity) return `${name} no data`;
      return `${name} at most ${fixed(loudest)} at GPS ${(time - this.lag).toFixed(2)} s`;
    });
    const ends = `GPS ${start.toFixed(1)} to ${stop.toFixed(1)} s`;
    this.readout.textContent = `${ends} · ${parts.join(" · ")}`;
  }
}

/**
 * Runs of points that have valid scores.
 * @param {ScoresAnswer} scores
 */
function pieces({ minimum, maximum, time, bucket }) {
  /** @type {{ time: number, minimum: number, maximum: number }[][]} */
  const runs = [];
  let before = -Infinity; // time of the last valid point
  time.forEach((t, i) => {
    const [low, high] = [minimum[i], maximum[i]];
    if (low === null || high === null) {
      before = -Infinity;
      return;
    }
    if (t - before >= 2.5 * bucket) runs.push([]);
    runs[runs.length - 1].push({ time: t, minimum: low, maximum: high });
    before = t;
  });
  return runs;
}

/**
 * Index of the time next to a value.
 * @param {number[]} sorted
 * @param {number} value
 */
function nearest(sorted, value) {
  let [low, high] = [0, sorted.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle;
    else high = middle;
  }
  return value - sorted[low] < sorted[high] - value ? low : high;
}
