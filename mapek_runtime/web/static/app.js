// The shell of the page: which view is shown, the connection to the service, pause, theme and keys.

import { api, follow, setToken } from "./api.js";
import { icon } from "./icons.js";
import { Keys, Notes, Token } from "./dialogs.js";
import { html, render, useEffect, useErrorBoundary, useRef, useState } from "./lib/htm/preact.js";
import { names } from "./format.js";
import { apply, begin, cyclesOf } from "./live.js";
import Loop from "./views/loop.js";

const VIEWS = [
  ["loop", "Loop", "#/"],
  ["mesh", "Mesh", "#/mesh"],
  ["search", "Search", "#/search"],
  ["phases", "Phases", "#/phases"],
  ["health", "Health", "#/health"],
];
const MODULES = {
  loop: () => ({ default: Loop }),
  mesh: () => import("./views/mesh.js"),
  search: () => import("./views/search.js"),
  trace: () => import("./views/trace.js"),
  phases: () => import("./views/phases.js"),
  health: () => import("./views/health.js"),
};
const TURN = 250; // Milliseconds between two pictures: what happens in between is shown together.
const HIDDEN_TURN = 2_000;

/** A part of an address, which somebody may have written by hand. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address after the #, taken apart. */
function routeOf(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [view, ...rest] = path.split("/").map(decoded);
  return { view: view || "loop", id: rest.join("/"), params: new URLSearchParams(query) };
}

function useRoute() {
  const [route, setRoute] = useState(() => routeOf(location.hash));
  useEffect(() => {
    const changed = () => setRoute(routeOf(location.hash));
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return route;
}

/** The state as the service tells it, brought up to date a few times a second. */
function useLive() {
  const [state, setState] = useState(null);
  const [connection, setConnection] = useState({ status: "connecting" });
  const connected = useRef(null);

  useEffect(() => {
    let current = null;
    let queue = [];
    let timer = null;
    const turn = () => {
      timer = null;
      if (!current || !queue.length) return;
      const events = queue;
      queue = [];
      current = apply(current, events);
      setState(current);
      if (events.some(([type]) => type === "lost")) again();
    };
    // What was lost on the way is in the state, as far as it is kept.
    const again = async () => {
      try {
        const told = await api.get("/page/state");
        if (current?.started !== told.started) return;
        current = begin(told, current);
        setState(current);
      } catch (error) {
        console.warn(`the state cannot be had: ${error.message}`);
      }
    };
    connected.current = follow({
      async open(signal) {
        queue = [];
        const told = await api.get("/page/state", { signal });
        // Another process at the same address has nothing to do with what was seen.
        current = begin(told, current?.started === told.started ? current : null);
        setState(current);
      },
      event(type, data) {
        queue.push([type, data]);
        timer ??= setTimeout(turn, document.hidden ? HIDDEN_TURN : TURN);
      },
      status: setConnection,
    });
    return () => {
      clearTimeout(timer);
      connected.current.stop();
    };
  }, []);
  return { state, connection, retry: () => connected.current?.retry() };
}

/** Seconds until `at`, counted down. */
function Countdown({ at }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, []);
  return html`${Math.max(0, Math.ceil((at - now) / 1000))} s`;
}

function Connection({ connection, retry }) {
  const words = {
    connecting: "Connecting…",
    live: "Live",
    token: "Token needed",
    lost: html`Reconnecting in <${Countdown} at=${connection.retryAt} />`,
  };
  const { status } = connection;
  return html`<span class=${names("connection", status)} role="status">
    <i class="dot" aria-hidden="true"></i>${words[status]}
    ${status === "lost" && html`<button class="link" onClick=${retry}>Now</button>`}
  </span>`;
}

function Theme() {
  const [choice, setChoice] = useState(window.mapekTheme.get());
  const label = { auto: "as the system", light: "light", dark: "dark" }[choice];
  return html`<button class="tool" onClick=${() => setChoice(window.mapekTheme.next())} title=${`Colours: ${label}`} aria-label=${`Colours: ${label}. Change`}>
    ${icon(choice)}
  </button>`;
}

function Bar({ route, connection, retry, paused, behind, pause, keys, service }) {
  const at = route.view === "trace" ? "search" : route.view;
  return html`<header class="bar">
    <a class="brand" href="#/"><img src="/static/icons/mapek.svg" alt="" width="22" height="22" /><b>mapek</b><span class="service">${service}</span></a>
    <nav aria-label="Views">
      ${VIEWS.map(([name, label, href]) => html`<a key=${name} href=${href} aria-current=${at === name ? "page" : null}>${label}</a>`)}
    </nav>
    <div class="tools">
      <${Connection} connection=${connection} retry=${retry} />
      <button class=${names("tool wide", paused && "on")} onClick=${pause} aria-pressed=${paused} title="Pause or follow (space)">
        ${icon(paused ? "play" : "pause")}<span class="wide-label">${paused ? "Follow" : "Pause"}</span>${paused && behind > 0 && html`<span class="behind">+${behind}</span>`}
      </button>
      <${Theme} />
      <button class="tool" onClick=${keys} title="Keys (?)" aria-label="Keys">?</button>
    </div>
  </header>`;
}

function Failed({ name, error, again }) {
  return html`<section class="notice" role="alert">
    <h1>This view could not be shown</h1>
    <p>${name}: ${error.message}</p>
    <p><button onClick=${again}>Try again</button> The other views are not concerned.</p>
  </section>`;
}

/** A view, loaded when it is first wanted; one that fails leaves the others alone. */
function View({ route, ...props }) {
  const [loaded, setLoaded] = useState({ loop: Loop });
  const [refused, setRefused] = useState(null);
  const [broken, reset] = useErrorBoundary((error) => console.error(error));
  const { view } = route;
  useEffect(() => {
    setRefused(null);
    if (broken) reset();
    if (!MODULES[view] || loaded[view]) return;
    let wanted = true;
    MODULES[view]()
      .then((module) => wanted && setLoaded((all) => ({ ...all, [view]: module.default })))
      .catch((error) => wanted && setRefused(error));
    return () => (wanted = false);
  }, [view]);
  if (!MODULES[view]) {
    return html`<section class="notice"><h1>There is no view ${JSON.stringify(view)}</h1><p><a href="#/">To the loop</a></p></section>`;
  }
  const error = broken ?? refused;
  if (error) return html`<${Failed} name=${view} error=${error} again=${() => location.reload()} />`;
  const Component = loaded[view];
  return Component ? html`<${Component} route=${route} ...${props} />` : html`<p class="waiting">Loading…</p>`;
}

const typing = (target) => target.closest?.("input, textarea, select, [contenteditable], dialog");

function App() {
  const route = useRoute();
  const { state, connection, retry } = useLive();
  const [frozen, setFrozen] = useState(null);
  const [showKeys, setShowKeys] = useState(false);
  const [token, setTokenWanted] = useState(false);
  const [notes, setNotes] = useState([]);
  const live = useRef(state);
  live.current = state;

  const pause = () => setFrozen((was) => (was ? null : live.current));
  const note = (text, kind = "ok") => {
    const id = Math.random();
    setNotes((all) => [...all.slice(-2), { id, text, kind }]);
    setTimeout(() => setNotes((all) => all.filter((one) => one.id !== id)), 6_000);
  };

  useEffect(() => {
    const wanted = () => setTokenWanted(true);
    window.addEventListener("mapek-token", wanted);
    return () => window.removeEventListener("mapek-token", wanted);
  }, []);

  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || typing(event.target)) return;
      if (event.key === " " && !event.target.closest("button, summary")) pause();
      else if (event.key === "?") setShowKeys(true);
      else if (event.key >= "1" && event.key <= String(VIEWS.length)) location.hash = VIEWS[Number(event.key) - 1][2];
      else if (event.key === "/") location.hash = "#/search";
      else return;
      event.preventDefault();
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, []);

  useEffect(() => {
    const title = VIEWS.find(([name]) => name === route.view)?.[1] ?? "Trace";
    document.title = `${state?.halted != null ? "Halted · " : ""}${title} · mapek`;
  }, [route.view, state?.halted != null]);

  // What the reader of a screen hears first after a change of view is the view, not the bar again.
  const main = useRef(null);
  const first = useRef(true);
  useEffect(() => {
    if (!first.current) main.current?.focus({ preventScroll: true });
    first.current = false;
    window.scrollTo(0, 0);
  }, [route.view]);

  const shown = frozen ?? state;
  const behind = frozen && state ? cyclesOf(state) - cyclesOf(frozen) : 0;
  const wanted = token || connection.status === "token";
  const use = (value) => {
    setToken(value);
    setTokenWanted(false);
    retry();
  };
  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>To the content</a>
    <${Bar}
      route=${route}
      connection=${connection}
      retry=${retry}
      paused=${frozen !== null}
      behind=${behind}
      pause=${pause}
      keys=${() => setShowKeys(true)}
      service=${state?.service ?? ""}
    />
    ${state?.halted != null &&
    html`<div class="banner bad" role="alert"><b>The loop is halted:</b> ${state.halted || "no reason was given"}. It watches and acts on nothing. <a href="#/mesh">Resume on the mesh view</a></div>`}
    ${state?.dry_run && html`<div class="banner">Dry run: what the loop would do is shown, nothing is done.</div>`}
    ${state && connection.status === "lost" && html`<div class="banner warn" role="status"><b>Connection lost</b>${connection.message ? `: ${connection.message}` : ", it broke off."} What is below is as it was then.</div>`}
    <main id="main" ref=${main} tabindex="-1">
      ${wanted
        ? html`<${Token} use=${use} message=${connection.message} />`
        : shown || route.view === "search" || route.view === "trace"
          ? html`<${View} route=${route} state=${shown ?? EMPTY} api=${api} note=${note} paused=${frozen !== null} pause=${pause} />`
          : html`<${Waiting} connection=${connection} />`}
    </main>
    <${Notes} notes=${notes} />
    ${showKeys && html`<${Keys} close=${() => setShowKeys(false)} />`}
  `;
}

const EMPTY = { nodes: [], links: [], faults: [], cycles: {}, happened: [], latest: {}, samples: [], controls: {}, stored: null, halted: null, jaeger: "" };

function Waiting({ connection }) {
  if (connection.status !== "lost") return html`<p class="waiting">Connecting to the service…</p>`;
  return html`<section class="notice" role="alert">
    <h1>No answer from the service</h1>
    <p>${connection.message || "The connection broke off."} The page tries again by itself.</p>
    <p>If it was stopped, start it with <code>mapek run --nodes 5 --chaos</code> and use the address it prints.</p>
  </section>`;
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
