// Asking the API, and hearing from it when something changed.

const TIMEOUT = 30_000; // longest wait for an answer, ms
const SILENCE = 40_000; // the API says that it lives more often than that, ms
const PATIENCE = 5000; // until one that failed is tried again, ms

export const byId = (id) => document.getElementById(id);

export const nanoseconds = (seconds) => `${Math.floor(Math.max(0, seconds))}000000000`;

// The answer to a question; throws an Error that says why there is none.
export async function get(path, query = {}) {
  const options = { signal: AbortSignal.timeout(TIMEOUT) };
  const response = await fetch(`${path}?${new URLSearchParams(query)}`, options).catch((error) => {
    throw new Error(error.name === "TimeoutError" ? "the API does not answer" : "the API cannot be reached");
  });
  const body = await response.json().catch(() => {
    throw new Error(`the API cannot be reached (status ${response.status})`);
  });
  if (!response.ok) throw new Error(body.detail);
  return body;
}

// Calls `told` with the revisions of the runs that changed, and `lost` when the API is
// not heard any more. A browser has few connections to one address: a page that nobody
// sees gives its own back.
export function listen(told, lost = () => {}) {
  let source = null;
  let timer = null;
  const again = (wait) => {
    clearTimeout(timer);
    timer = setTimeout(open, wait);
  };
  function open() {
    source?.close();
    clearTimeout(timer);
    source = null;
    if (document.hidden) return;
    source = new EventSource("/v1/live");
    again(SILENCE);
    source.addEventListener("alive", () => again(SILENCE));
    source.addEventListener("runs", (event) => {
      again(SILENCE);
      told(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      lost();
      // The browser tries again by itself, but not after an answer that is an error.
      if (source.readyState === EventSource.CLOSED) again(PATIENCE);
    });
  }
  document.addEventListener("visibilitychange", open);
  open();
}
