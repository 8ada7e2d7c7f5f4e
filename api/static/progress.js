// How far a run's background is, and when it will be done.
import { duration, percent } from "./units.js";

const MEMORY = 300; // the rate is that of so many seconds at most

export class Progress {
  constructor() {
    this.run = null;
    this.seen = [];
  }

  // A sentence on the background of a run as it stands.
  say({ id, state, background }) {
    const { livetime, planned, slides } = background;
    if (id !== this.run) [this.run, this.seen] = [id, []];
    const now = performance.now() / 1000;
    this.seen.push([now, livetime]);
    while (now - this.seen[0][0] > MEMORY && this.seen.length > 2) this.seen.shift();
    const done = `${slides} slides, ${percent(Math.min(1, livetime / planned))} of ${duration(planned)}`;
    const [before, had] = this.seen[0];
    const rate = (livetime - had) / (now - before);
    if (livetime >= planned || state !== "running" || !(rate > 0)) return `${done}.`;
    return `${done}; ${duration((planned - livetime) / rate)} to go at ${duration(rate)} a second.`;
  }
}
