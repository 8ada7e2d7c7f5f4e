// Moving a plot through time: drag, pinch, wheel while focused, keys.

function zoom(plot, factor, about = 0.5) {
  if (!plot.range) return;
  const [start, stop] = plot.range;
  const length = stop - start;
  const fixed = start + about * length;
  plot.setView([fixed - about * length * factor, fixed + (1 - about) * length * factor]);
}

export function move(plot, action) {
  if (!plot.range) return;
  const [start, stop] = plot.range;
  const length = stop - start;
  if (action === "left") plot.setView([start - length / 4, stop - length / 4]);
  if (action === "right") plot.setView([start + length / 4, stop + length / 4]);
  if (action === "in") zoom(plot, 1 / 2);
  if (action === "out") zoom(plot, 2);
  if (action === "all") plot.setView([-Infinity, Infinity].map((end, i) => plot.extent[i]));
}

const KEYS = { ArrowLeft: "left", ArrowRight: "right", "+": "in", "=": "in", "-": "out", 0: "all", Home: "all" };

export function navigate(host, plot) {
  const fingers = new Map();
  const share = (x) => {
    const place = host.getBoundingClientRect();
    const { left, right } = plot.box;
    return Math.min(1, Math.max(0, (x - place.left - left) / (right - left)));
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
  host.addEventListener("dblclick", (event) => plot.box && zoom(plot, 1 / 2, share(event.clientX)));

  host.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    fingers.set(event.pointerId, event.clientX);
    host.setPointerCapture(event.pointerId);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    host.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }
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
      const spread = (places) => Math.max(0.02, Math.abs(places[0] - places[1]));
      const middle = (places) => (places[0] + places[1]) / 2;
      const longer = (length * spread(before)) / spread(after);
      const begin = start + middle(before) * length - middle(after) * longer;
      plot.setView([begin, begin + longer]);
    }
  });
}
