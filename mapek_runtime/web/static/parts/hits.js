// The traces that were found: one row each.

import { cut } from "../format.js";
import { html } from "../lib/htm/preact.js";
import { ago, count, duration, moment } from "./amounts.js";

const SHOWN = 3; // Attributes beside a chosen span.

/** What to say of a chosen span: what was asked to be shown, else what the query speaks of. */
function said(span, query) {
  const selected = Object.entries(span.selected ?? {});
  if (selected.length) return selected;
  const spoken = Object.entries(span.attributes ?? {}).filter(
    ([key, value]) =>
      (typeof value !== "object" || value === null) &&
      (key === "node_id" || key === "cycle" || (key === "success" && value === false) || query.includes(key)),
  );
  return spoken.slice(0, SHOWN);
}

/** A root that was chosen itself needs no name again: only what it says of itself. */
function Own({ span, query }) {
  return said(span, query).map(([key, value]) => html`<span class="t-own" key=${key}><em>${cut(key)}</em> ${cut(String(value))}</span>`);
}

function Chosen({ trace, span, query }) {
  return html`<a class="t-chosen" href=${`#/trace/${trace.trace_id}?span=${span.span_id}`}>
    ${span.status === "error" && html`<i class="t-dot-bad" title="error"></i>`}
    <span>${cut(span.name)}</span>
    ${said(span, query).map(([key, value]) => html`<em key=${key}>${cut(key)}=${cut(String(value))}</em>`)}
    <b>${duration(Number(span.duration))}</b>
  </a>`;
}

function Hit({ trace, longest, now, query }) {
  const start = BigInt(trace.start);
  const length = Number(BigInt(trace.end) - start);
  const services = Object.entries(trace.services ?? {});
  const chosen = trace.sets.flatMap((set) => set.spans);
  const matched = trace.sets.reduce((sum, set) => sum + set.matched, 0);
  const root = cut(trace.root_name) || "root not stored";
  // Where the root alone was chosen, or all there is, the row speaks for it.
  const alone = (matched === 1 || matched >= trace.spans) && chosen.find((span) => !span.parent_id);
  const more = alone ? [] : chosen.slice(0, 3);
  return html`<li class=${trace.errors ? "t-hit t-hit-bad" : "t-hit"}>
    <div class="t-hit-what">
      <a class=${trace.root_name ? "t-hit-name" : "t-hit-name t-muted"} href=${`#/trace/${trace.trace_id}`}>${root}</a>
      <span class="t-muted">${cut(trace.root_service || services.map(([name]) => name).join(", "))}</span>
      ${services.length > 1 && html`<span class="t-tag" title=${cut(services.map(([name, n]) => `${name}: ${n.spans}`).join("\n"), 2000)}>${count(services.length, "service")}</span>`}
      ${trace.errors > 0 && html`<span class="t-badge">${count(trace.errors, "error")}</span>`}
    </div>
    <div class="t-hit-chosen">
      ${trace.sets.map((set) => set.by.map(([name, value]) => html`<span class="t-tag">${cut(name)} ${cut(String(value))}: ${set.matched}</span>`))}
      ${alone && html`<${Own} span=${alone} query=${query} />`}
      ${more.map((span) => html`<${Chosen} key=${span.span_id} trace=${trace} span=${span} query=${query} />`)}
      ${!alone && matched > more.length && html`<span class="t-muted">${matched} chosen</span>`}
    </div>
    <time class="t-hit-when" title=${moment(start)}>${ago(start, now)}</time>
    <span class="t-hit-spans">${count(trace.spans, "span")}</span>
    <span class="t-hit-length"
      ><i class="t-length" style=${{ width: `${Math.max(0.5, (length / longest) * 100)}%` }}></i><b>${duration(length)}</b></span
    >
  </li>`;
}

export function Hits({ traces, sort, now, query }) {
  const length = (trace) => Number(BigInt(trace.end) - BigInt(trace.start));
  const longest = traces.reduce((most, trace) => Math.max(most, length(trace)), 1);
  const shown = sort === "longest" ? [...traces].sort((a, b) => length(b) - length(a)) : traces;
  return html`<ol class="t-hits" aria-label="Traces found">
    ${shown.map((trace) => html`<${Hit} key=${trace.trace_id} trace=${trace} longest=${longest} now=${now} query=${query} />`)}
  </ol>`;
}
