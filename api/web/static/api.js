// Requests to the API, and its feed of changes.
/** @import { Paths, Problem } from "../openapi.d.ts" */

const TIMEOUT = 30_000; // longest wait for an answer, ms
const SILENCE = 40_000; // longer than the feed's keep-alive interval, ms
const PATIENCE = 5000; // until a failed feed is opened again, ms

/**
 * GPS time in nanoseconds; a number does not hold them exactly.
 * @param {number} seconds
 */
export function nanoseconds(seconds) {
  return BigInt(Math.floor(Math.max(0, seconds))) * 1_000_000_000n;
}

/**
 * What an error says.
 * @param {unknown} error
 */
export const reason = (error) => error instanceof Error ? error.message : String(error);

/**
 * GET a path of the API's description. Parameters that its braces name go into the path,
 * the others into the query. Throws an Error that says why there is no answer.
 * @template {keyof Paths} P
 * @param {P} path
 * @param {Paths[P]["parameters"]} parameters
 * @returns {Promise<Paths[P]["answer"]>}
 */
export async function get(path, parameters) {
  const query = new URLSearchParams();
  /** @type {string} */
  let address = path;
  for (const [name, value] of Object.entries(parameters)) {
    const place = `{${name}}`;
    if (path.includes(place)) address = address.replace(place, encodeURIComponent(value));
    else for (const item of [value].flat()) query.append(name, item);
  }
  const options = { signal: AbortSignal.timeout(TIMEOUT) };
  const response = await fetch(`${address}?${query}`, options).catch((error) => {
    const late = error.name === "TimeoutError";
    throw new Error(late ? "the API does not answer" : "the API cannot be reached");
  });
  const body = await response.json().catch(() => {
    throw new Error(`the API cannot be reached (status ${response.status})`);
  });
  if (response.ok) return body;
  /** @type {Problem} */
  const problem = body;
  throw new Error(problem.detail);
}

/**
 * Call `changed` with the revisions of the runs that changed, and `lost` when the feed breaks.
 * A browser opens few connections to one server: a hidden page closes its own.
 * @param {(revisions: Record<string, number>) => void} changed
 * @param {() => void} lost
 */
export function listen(changed, lost) {
  /** @type {EventSource | undefined} */
  let source;
  /** @type {number | undefined} */
  let timer;
  /** @param {number} wait */
  const reopen = (wait) => {
    clearTimeout(timer);
    timer = setTimeout(open, wait);
  };
  function open() {
    source?.close();
    clearTimeout(timer);
    if (document.hidden) return;
    const opened = new EventSource("/v1/live");
    source = opened;
    reopen(SILENCE);
    opened.addEventListener("alive", () => reopen(SILENCE));
    opened.addEventListener("runs", (event) => {
      reopen(SILENCE);
      changed(JSON.parse(event.data));
    });
    opened.addEventListener("error", () => {
      lost();
      // The browser reconnects by itself, except after an error status.
      if (opened.readyState === EventSource.CLOSED) reopen(PATIENCE);
    });
  }
  document.addEventListener("visibilitychange", open);
  open();
}
