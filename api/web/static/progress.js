// How far a run's background is, and when it will be done.
/** @import { RunStatus } from "../openapi.d.ts" */
import { duration, percent } from "./units.js";

const MEMORY = 300; // longest time that the rate is measured over, s
const STALLED = 60; // a run without news for that long has stalled, s

export class Progress {
  /** @type {string | undefined} */
  run;
  /**
   * When the run changed, and its livetime then, s.
   * @type {[changed: number, livetime: number][]}
   */
  seen = [];

  /**
   * A sentence on the background of a run as it stands.
   * @param {RunStatus} run
   */
  say({ id, state, created, updated, background }) {
    const { livetime, planned, blocks } = background;
    if (!planned) return "";
    const changed = Date.parse(updated) / 1000;
    // Until this page has seen it grow: the mean since the beginning.
    if (id !== this.run) [this.run, this.seen] = [id, [[Date.parse(created) / 1000, 0]]];
    if (changed > this.seen[this.seen.length - 1][0]) this.seen.push([changed, livetime]);
    while (changed - this.seen[0][0] > MEMORY && this.seen.length > 2) this.seen.shift();
    const share = percent(Math.min(1, livetime / planned));
    const done = `${share} of ${duration(planned)}, in ${blocks} blocks`;
    const [before, had] = this.seen[0];
    const rate = (livetime - had) / (changed - before);
    if (livetime >= planned || state !== "running" || !(rate > 0)) return `${done}.`;
    const silent = Date.now() / 1000 - changed;
    if (silent > STALLED) return `${done}; nothing new for ${duration(silent)}.`;
    return `${done}; ${duration((planned - livetime) / rate)} to go at ${duration(rate)} a second.`;
  }
}
