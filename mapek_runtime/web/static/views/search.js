// Search: a query in either language, the traces it finds, and their durations to narrow it by.
//
// The address holds everything that was asked, so that it can be sent to somebody else.

import { html, useEffect, useRef, useState } from "../lib/htm/preact.js";
import { bound, clock, count, now as moment_now, parseDuration } from "../parts/amounts.js";
import { Difference } from "../parts/difference.js";
import { Histogram } from "../parts/histogram.js";
import { Hits } from "../parts/hits.js";
import { RANGES, narrowed, readAsked, times, writeAsked } from "../parts/narrow.js";
import { QueryField } from "../parts/query_field.js";
import { Examples, QueryHelp } from "../parts/query_help.js";

const FOLLOW = 1_000; // Milliseconds between two questions of a search that follows.
const POINTS = 5_000;

const path = (name, given) => {
  const params = new URLSearchParams(Object.entries(given).filter(([, value]) => value !== "" && value !== null));
  return `/page/${name}?${params}`;
};

/** What the service finds for `asked`; asked again when `turn` changes. An answer that came too late is thrown away. */
function useFound(api, asked, turn) {
  const [found, setFound] = useState({ traces: null, spans: [], error: null, busy: true });
  const key = writeAsked({ ...asked, sort: "newest", follow: false });
  const newest = useRef(0);
  const ask = async (before = null) => {
    const number = ++newest.current;
    const current = () => number === newest.current;
    const now = moment_now();
    const query = narrowed(asked.q, asked.least, asked.most) ?? asked.q;
    const when = times(asked, now);
    setFound((was) => ({ ...was, busy: true }));
    try {
      const given = { q: query, limit: asked.limit, ...when };
      const traces = api.get(path("search", before === null ? given : { ...given, before }));
      const spans = before === null ? api.get(path("durations", { q: query, limit: POINTS, ...when })) : null;
      // Both are wanted or neither: one that fails says why.
      const [told, drawn] = await Promise.all([traces, spans]);
      if (!current()) return;
      setFound((was) => {
        const known = new Set(before === null ? [] : was.traces.map((trace) => trace.trace_id));
        const fresh = told.traces.filter((trace) => !known.has(trace.trace_id));
        return {
          traces: before === null ? fresh : [...was.traces, ...fresh],
          spans: drawn ? drawn.spans : was.spans,
          drawnAll: drawn ? drawn.complete && drawn.spans.length < POINTS : was.drawnAll,
          query: told.query,
          before: told.before,
          complete: told.complete,
          // What was brushed is drawn whole; of `the last hour` the part in which there is something.
          when: before === null ? { from: asked.from ? BigInt(asked.from) : null, to: asked.to ? BigInt(asked.to) : null } : was.when,
          now,
          error: null,
          busy: false,
        };
      });
    } catch (error) {
      if (!current()) return;
      // A query that was added to is not what the user sees: its columns would mislead.
      const column = query === asked.q ? error.column : null;
      setFound((was) => ({ ...was, busy: false, error: { message: error.message, column, status: error.status, text: asked.q } }));
    }
  };
  useEffect(() => {
    ask();
  }, [key, turn]);
  useEffect(() => () => void (newest.current = -1), []);
  return [found, ask];
}

/** Counts up when spans were stored, at most once a second, while `wanted`. */
function useStored(wanted, last) {
  const [turn, setTurn] = useState(0);
  const [timer] = useState({ id: null });
  useEffect(() => {
    if (!wanted || last === undefined || timer.id !== null) return;
    timer.id = setTimeout(() => {
      timer.id = null;
      setTurn((n) => n + 1);
    }, FOLLOW);
  }, [wanted, last]);
  useEffect(() => () => clearTimeout(timer.id), []);
  return [turn, () => setTurn((n) => n + 1)];
}

function DurationField({ label, value, set }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  const wrong = text.trim() !== "" && parseDuration(text) === null;
  const done = () => {
    const ns = parseDuration(text);
    if (text.trim() === "" || ns !== null) set(ns === null ? "" : bound(ns, "down"));
  };
  return html`<label class="t-control">
    <span>${label}</span>
    <input
      class="t-short"
      type="text"
      inputmode="text"
      placeholder="any"
      value=${text}
      aria-invalid=${wrong ? "true" : null}
      title=${wrong ? "A number and a unit, such as 50ms, 1.5s or 200us" : "Such as 50ms, 1.5s or 200us"}
      onInput=${(event) => setText(event.target.value)}
      onChange=${done}
    />
  </label>`;
}

function Controls({ asked, change }) {
  const brushed = asked.from || asked.to;
  return html`<div class="t-controls">
    <label class="t-control">
      <span>Time</span>
      <select value=${brushed ? "brushed" : asked.range} onChange=${(event) => change({ range: event.target.value, from: "", to: "" })}>
        ${brushed && html`<option value="brushed" selected>${brushedWords(asked)}</option>`}
        ${RANGES.map(([key, label]) => html`<option key=${key} value=${key} selected=${!brushed && key === asked.range}>${label}</option>`)}
      </select>
    </label>
    <${DurationField} label="Longer than" value=${asked.least} set=${(least) => change({ least })} />
    <${DurationField} label="Shorter than" value=${asked.most} set=${(most) => change({ most })} />
    <label class="t-control">
      <span>Traces</span>
      <select value=${String(asked.limit)} onChange=${(event) => change({ limit: Number(event.target.value) })}>
        ${[20, 50, 100, 200].map((n) => html`<option key=${n} value=${n} selected=${n === asked.limit}>${n}</option>`)}
      </select>
    </label>
    <label class="t-control">
      <span>Order</span>
      <select value=${asked.sort} onChange=${(event) => change({ sort: event.target.value })}>
        <option value="newest" selected=${asked.sort === "newest"}>newest first</option>
        <option value="longest" selected=${asked.sort === "longest"}>longest first</option>
      </select>
    </label>
    <label class="t-check" title="Ask again whenever spans are stored">
      <input type="checkbox" checked=${asked.follow} onChange=${(event) => change(event.target.checked ? { follow: true, from: "", to: "" } : { follow: false })} />
      <span>Follow</span>
    </label>
  </div>`;
}

function brushedWords(asked) {
  const at = (text) => (text ? clock(BigInt(text), 1) : "…");
  return `${at(asked.from)} – ${at(asked.to)}`;
}

function Nothing({ asked, change }) {
  const narrow = asked.q || asked.least || asked.most;
  const timed = asked.from || asked.to || asked.range !== "all";
  return html`<div class="t-empty">
    <h2>No trace fits</h2>
    <p>
      ${timed && html`<button type="button" onClick=${() => change({ range: "all", from: "", to: "" })}>Look in all that is kept</button>${" "}`}
      ${narrow && html`<button type="button" onClick=${() => change({ q: "", least: "", most: "" })}>Ask for every trace</button>`}
    </p>
    ${!narrow && !timed
      ? html`<p>Nothing is stored yet. Traces appear here when a loop runs with this service: <code>mapek run --nodes 5 --chaos</code>, or when a
          program sends OTLP to <code>/v1/traces</code> at this address.</p>`
      : html`<p class="t-muted">Conditions must hold of one and the same span; names are whole unless they hold a <code>*</code>.</p>`}
  </div>`;
}

export default function Search({ route, state, api, note, paused }) {
  const asked = readAsked(route.params);
  const [text, setText] = useState(asked.q);
  const field = useRef(null);
  useEffect(() => setText(asked.q), [asked.q]);
  const [turn, again] = useStored(asked.follow && !paused, state?.stored?.last);
  const [found, ask] = useFound(api, asked, turn);

  const change = (changes) => {
    const next = writeAsked({ ...asked, ...changes });
    if (next === writeAsked(asked)) again();
    else location.hash = next;
  };
  const submit = (q) => change({ q: q.trim() });
  const brushed = ({ from, to, least, most }) => {
    const changes = { follow: false };
    if (from !== undefined) Object.assign(changes, { from: String(from), to: String(to) });
    if (least !== undefined) Object.assign(changes, { least: bound(least, "down"), most: bound(most, "up") });
    change(changes);
  };
  const bounded = Boolean(asked.from || asked.to || asked.least || asked.most);
  const clear = () => change({ from: "", to: "", least: "", most: "" });
  const latest = useRef(null);
  latest.current = { bounded, clear };
  useEffect(() => {
    const pressed = (event) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape" && latest.current.bounded && !event.target.closest?.("dialog")) latest.current.clear();
      else if (event.key === "/" && !event.target.closest?.("input, select, textarea")) field.current?.focus();
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
  const copy = () =>
    navigator.clipboard
      ? navigator.clipboard.writeText(found.query).then(() => note?.("The query is copied as TraceQL"), () => note?.("The browser did not allow copying", "bad"))
      : note?.(found.query);

  const lost = narrowed(asked.q, asked.least, asked.most) === null;
  const { traces, error } = found;
  return html`<section class="t-search" aria-busy=${found.busy ? "true" : "false"}>
    <h1 class="t-visually-hidden">Search</h1>
    <form class="t-form" role="search" onSubmit=${(event) => (event.preventDefault(), submit(text))}>
      <div class="t-ask">
        <${QueryField} text=${text} setText=${setText} submit=${submit} error=${error?.status === 400 ? error : null} api=${api} field=${field} />
        <button class="t-primary" type="submit">Search</button>
      </div>
      <${Examples} use=${(query) => change({ q: query })} />
      <${Controls} asked=${asked} change=${change} />
      <${QueryHelp} />
    </form>
    ${lost &&
    html`<p class="t-note" role="status">
      The bounds of the duration are not used: this query relates spans to one another, and only you know which of them is meant. Write
      <code>duration >= 50ms</code> inside its braces.
    </p>`}
    ${error && error.status !== 400 && html`<div class="t-empty" role="alert"><h2>The search failed</h2><p>${error.message}</p><p><button type="button" onClick=${again}>Try again</button></p></div>`}
    ${traces && (traces.length > 0 || !error) &&
    html`<div class=${error ? "t-answer t-stale" : "t-answer"}>${found.spans.length > 0 && html`<${Histogram}
        spans=${found.spans}
        complete=${found.drawnAll}
        from=${found.when.from}
        to=${found.when.to}
        brushed=${brushed}
        open=${(span) => (location.hash = `#/trace/${span.trace_id}?span=${span.span_id}`)}
      />`}
      ${bounded && found.spans.length > 0 && html`<${Difference} api=${api} asked=${asked} link=${(changes) => writeAsked({ ...asked, ...changes })} />`}
      <div class="t-found">
        <b>${traces.length ? `${count(traces.length, "trace")}${found.before !== null ? ", and more" : ""}` : "No trace"}</b>
        ${bounded && html`<button type="button" class="t-clear" onClick=${clear} title="Escape">Clear the bounds ✕</button>`}
        ${!found.complete && html`<span class="t-warn" role="status">The time for the search ran out: there may be more. Narrow the time.</span>`}
        <button type="button" class="t-quiet" onClick=${copy} title=${found.query}>Copy as TraceQL</button>
      </div>
      ${traces.length
        ? html`<${Hits} traces=${traces} sort=${asked.sort} now=${found.now} query=${asked.q} />`
        : !error && html`<${Nothing} asked=${asked} change=${change} />`}
      ${found.before !== null && found.before !== undefined && traces.length > 0 &&
      html`<p class="t-more"><button type="button" disabled=${found.busy} onClick=${() => ask(found.before)}>Earlier traces</button></p>`}</div>`}
    ${!traces && !error && html`<p class="t-muted t-loading">Searching…</p>`}
  </section>`;
}
