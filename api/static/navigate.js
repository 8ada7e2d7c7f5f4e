// Moving a plot through time: drag, pinch, wheel while focused, keys.

export function move(plot, action, about = 0.5) {
  if (!plot.range) return;
  const [start, stop] = plot.range;
  const length = stop - start;
  const zoom = (factor) => {
    const fixed = start + about * length;
    plot.setView([fixed - about * length * factor, fixed + (1 - about) * length * factor]);
  };
  if (action === "left") plot.setView([start - length / 4, stop - length / 4]);
  if (action === "right") plot.setView([start + length / 4, stop + length / 4]);
  if (action === "in") zoom(1 / 2);
  if (action === "out") zoom(2);
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
    move(plot, event.deltaY > 0 ? "out" : "in", share(event.clientX));
  }, { passive: false });
  host.addEventListener("dblclick", (event) => move(plot, "in", share(event.clientX)));

  host.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, event.clientX);
    host.setPointerCapture(event.pointerId);
  });
  for (const end of ["pointerup", "pointercancel"]) {
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
