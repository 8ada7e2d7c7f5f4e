// Moving a plot through time: drag, pinch, wheel while focused, keys.
/** @import { StreamPlot } from "./stream.js" */

/**
 * @param {StreamPlot} plot
 * @param {number} factor
 */
function zoom(plot, factor, about = 0.5) {
  if (!plot.range) return;
  const [start, stop] = plot.range;
  const length = stop - start;
  const fixed = start + about * length;
  plot.setView([fixed - about * length * factor, fixed + (1 - about) * length * factor]);
}

/**
 * @param {StreamPlot} plot
 * @param {string | undefined} action
 */
export function move(plot, action) {
  if (!plot.range || !plot.extent) return;
  const [start, stop] = plot.range;
  const length = stop - start;
  if (action === "left") plot.setView([start - length / 4, stop - length / 4]);
  if (action === "right") plot.setView([start + length / 4, stop + length / 4]);
  if (action === "in") zoom(plot, 1 / 2);
  if (action === "out") zoom(plot, 2);
  if (action === "all") plot.setView(plot.extent);
}

/** @type {Record<string, string>} */
const KEYS = {
  ArrowLeft: "left",
  ArrowRight: "right",
  "+": "in",
  "=": "in",
  "-": "out",
  0: "all",
  Home: "all",
};

/**
 * @param {HTMLElement} host
 * @param {StreamPlot} plot
 */
export function navigate(host, plot) {
  /** @type {Map<number, number>} */
  const fingers = new Map();
  /**
   * Where between the axes' ends a place on the screen is, from 0 to 1.
   * @param {number} x
   */
  const share = (x) => {
    if (!plot.box) return 0.5;
    const { left, right } = plot.box;
    const place = x - host.getBoundingClientRect().left - left;
    return Math.min(1, Math.max(0, place / (right - left)));
  };

  host.addEventListener("keydown", (event) => {
    const action = KEYS[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move(plot, action);
  });
  // Only while focused: a page must scroll past a plot.
  host.addEventListener("wheel", (event) => {
    if (document.activeElement !== host || !plot.box) return;
    event.preventDefault();
    // A trackpad sends many small steps, a wheel one of about 100.
    const factor = 2 ** (Math.min(200, Math.max(-200, event.deltaY)) / 100);
    if (factor !== 1) zoom(plot, factor, share(event.clientX));
  }, { passive: false });
  host.addEventListener("dblclick", (event) => {
    if (plot.box) zoom(plot, 1 / 2, share(event.clientX));
  });

  host.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    fingers.set(event.pointerId, event.clientX);
    host.setPointerCapture(event.pointerId);
  });
  /** @param {PointerEvent} event */
  const lift = (event) => fingers.delete(event.pointerId);
  host.addEventListener("pointerup", lift);
  host.addEventListener("pointercancel", lift);
  host.addEventListener("lostpointercapture", lift);
  host.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId) || !plot.box || !plot.range) return;
    const before = [...fingers.values()].map(share);
    fingers.set(event.pointerId, event.clientX);
    const after = [...fingers.values()].map(share);
    const [start, stop] = plot.range;
    const length = stop - start;
    if (fingers.size === 1) {
      const shift = (before[0] - after[0]) * length;
      if (shift) plot.setView([start + shift, stop + shift]);
    } else {
      /** @param {number[]} places */
      const spread = (places) => Math.max(0.02, Math.abs(places[0] - places[1]));
      /** @param {number[]} places */
      const middle = (places) => (places[0] + places[1]) / 2;
      const longer = (length * spread(before)) / spread(after);
      const begin = start + middle(before) * length - middle(after) * longer;
      plot.setView([begin, begin + longer]);
    }
  });
}
