// What the page asks of the service: requests, and the stream of what happens.
//
// A token is kept for this tab only and sent as a header; because an EventSource cannot send headers, the stream is
// read with fetch.

const TOKEN = "mapek.token";
const SILENCE = 40_000; // Milliseconds without a byte, after which a connection is taken for dead; the service says something every 15 s.
const OPENING = 10_000; // Milliseconds in which a connection has to stand.
const FIRST_RETRY = 1_000;
const LAST_RETRY = 15_000;

let remembered = "";

function token() {
  try {
    return sessionStorage.getItem(TOKEN) ?? remembered;
  } catch {
    return remembered;
  }
}

/** Keep the token, or forget it when it is empty. */
export function setToken(value) {
  remembered = value;
  try {
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
  } catch {
    // A browser may forbid storage: the token then lasts as long as the page.
  }
}

/** What the service answered when it was not what was asked for. `status` is 0 when there was no answer. */
export class ApiError extends Error {
  constructor(message, status, body = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.body = body;
    this.column = body.column ?? null;
  }
}

function headers(more) {
  const value = token();
  return value ? { ...more, Authorization: `Bearer ${value}` } : more;
}

async function refusal(response) {
  let body = {};
  const text = await response.text();
  try {
    body = JSON.parse(text) ?? {};
  } catch {
    body = {};
  }
  const message = body.error || `the service answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(message, response.status, body);
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the service does not answer; is it still running?", 0);
  }
  if (!response.ok) {
    const error = await refusal(response);
    if (error.status === 401) window.dispatchEvent(new Event("mapek-token"));
    throw error;
  }
  return response;
}

export const api = {
  /** The JSON at `path`; rejects with the service's own words. */
  async get(path, { signal } = {}) {
    return (await request(path, { headers: headers({ Accept: "application/json" }), signal })).json();
  },

  /** Send `body` as JSON. */
  async post(path, body = {}) {
    const sent = headers({ "Content-Type": "application/json", "X-Mapek": "1" });
    return (await request(path, { method: "POST", headers: sent, body: JSON.stringify(body) })).json();
  },

  /** The bytes at `path`, for a download: a link could not carry the token. */
  async blob(path) {
    return (await request(path, { headers: headers({}) })).blob();
  },
};

/** Take events out of the text of a stream; gives what is left over. */
export function parseEvents(text, give) {
  const blocks = text.split(/\r?\n\r?\n/);
  const rest = blocks.pop();
  for (const block of blocks) {
    let type = "message";
    let id = "";
    const data = [];
    for (const line of block.split(/\r?\n/)) {
      if (line.startsWith(":")) continue;
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "event") type = value;
      else if (field === "data") data.push(value);
      else if (field === "id") id = value;
    }
    if (data.length) give(type, data.join("\n"), id);
  }
  return rest;
}

/**
 * Follow /page/live until told to stop, connecting again whenever the connection is lost.
 *
 * `open(signal)` is awaited each time a connection stands, before its events are given; `event(type, data)` gets each event;
 * `status(value)` hears `{status: "connecting" | "live" | "lost" | "token", retryAt, message}`.
 */
export function follow({ open, event, status }) {
  let ended = false;
  let controller = null;
  let wake = null;
  let delay = FIRST_RETRY;

  async function once() {
    controller = new AbortController();
    const { signal } = controller;
    let watchdog;
    const alive = (limit = SILENCE) => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => controller.abort(), limit);
    };
    alive(OPENING);
    try {
      const response = await request("/page/live", { headers: headers({ Accept: "text/event-stream" }), signal });
      // The stream first, then the state: what happens in between is in both, and counted once.
      await open(signal);
      status({ status: "live" });
      alive();
      delay = FIRST_RETRY;
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        alive();
        text = parseEvents(text + decoder.decode(value, { stream: true }), (type, data) => event(type, JSON.parse(data)));
      }
    } finally {
      clearTimeout(watchdog);
      controller.abort();
    }
  }

  async function run() {
    while (!ended) {
      let message = "";
      try {
        await once();
      } catch (error) {
        if (error.status === 401) {
          status({ status: "token", message: error.message });
          await new Promise((resolve) => (wake = resolve));
          continue;
        }
        message = error.name === "AbortError" ? "" : error.message;
      }
      if (ended) return;
      status({ status: "lost", retryAt: Date.now() + delay, message });
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, delay);
      });
      delay = Math.min(delay * 2, LAST_RETRY);
      if (!ended) status({ status: "connecting" });
    }
  }

  status({ status: "connecting" });
  run();
  return {
    /** Do not wait: try now. */
    retry: () => wake?.(),
    stop() {
      ended = true;
      wake?.();
      controller?.abort();
    },
  };
}
