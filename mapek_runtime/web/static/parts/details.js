// The chosen span: what it says of itself, what happened in it, what it is linked to, who sent it.

import { cut } from "../format.js";
import { html } from "../lib/htm/preact.js";
import { clock, count, duration, moment } from "./amounts.js";

const LONGEST = 20_000; // Signs of a value that are shown; the download has all of it.
const LINKED = 1_000; // Signs of a query that is offered as a link.

const whole = (value) => {
  if (value === null || value === undefined) return "none";
  if (Array.isArray(value)) return value.map(whole).join(", ");
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
};

const shown = (value) => {
  const text = whole(value);
  return text.length > LONGEST ? `${cut(text, LONGEST)} (${(text.length - LONGEST).toLocaleString("en")} more signs)` : text;
};

const literal = (value) =>
  typeof value === "string" ? `"${value.replace(/[\\"]/g, "\\$&")}"` : typeof value === "object" ? null : String(value);

const plainKey = /^[A-Za-z_][\w.-]*$/;

/** A search for spans such as this one with that attribute; null where it cannot be written. */
export function similar(span, scope, key, value) {
  const wanted = literal(value);
  if (wanted === null) return null;
  const field = plainKey.test(key) ? `${scope}.${key}` : `${scope}."${key.replace(/[\\"]/g, "\\$&")}"`;
  const q = `{ name = ${literal(span.name)} && ${field} = ${wanted} }`;
  return q.length > LINKED ? null : `#/search?${new URLSearchParams({ q })}`;
}

function Pairs({ pairs, link }) {
  return html`<table class="t-pairs">
    <tbody>
      ${pairs.map(([key, value]) => {
        const href = link?.(key, value);
        return html`<tr key=${key}>
          <th scope="row">${cut(key)}</th>
          <td class=${`t-is-${typeof value}`}>${shown(value)}${href && html`<a class="t-such" href=${href} title="Search for spans with this value" aria-label=${`Search for spans with this ${cut(key)}`}>⌕</a>`}</td>
        </tr>`;
      })}
    </tbody>
  </table>`;
}

const sorted = (attributes) => Object.entries(attributes ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));

function Event({ event, start }) {
  const after = Number(BigInt(event.time) - start);
  const pairs = Object.entries(event.attributes ?? {});
  const trace = pairs.find(([key]) => key === "exception.stacktrace");
  return html`<details class="t-event-told" open=${event.name === "exception"}>
    <summary><b>${cut(event.name)}</b> <span class="t-muted" title=${moment(BigInt(event.time))}>${after < 0 ? "−" : "+"}${duration(Math.abs(after))}</span>
      <span class="t-brief">${cut(pairs.slice(0, 3).map(([, value]) => whole(value)).join(" · "))}</span>
    </summary>
    <${Pairs} pairs=${pairs.filter((pair) => pair !== trace)} />
    ${trace && html`<pre class="t-stack">${shown(trace[1])}</pre>`}
  </details>`;
}

export function Details({ node, tree, close, goTo, box }) {
  const { span } = node;
  const start = BigInt(span.start);
  const events = span.events ?? [];
  const links = span.links ?? [];
  const attributes = sorted(span.attributes);
  return html`<aside class="t-details" aria-label=${`Details of ${cut(span.name)}`} tabindex="-1" ref=${box}>
    <header>
      <h2>${cut(span.name, LONGEST)}</h2>
      <button type="button" class="t-close" aria-label="Close the details" onClick=${close}>✕</button>
    </header>
    <p class="t-facts">
      <span><b>${duration(node.end - node.start)}</b> long</span>
      <span title=${moment(start)}>at <b>${node.start === 0 ? "the start" : `+${duration(node.start)}`}</b></span>
      <span>${span.kind}</span>
      <span class=${span.status === "error" ? "t-bad" : ""}>${span.status === "unset" ? "no status" : span.status}</span>
      ${node.size > 1 && html`<span>${count(node.size - 1, "span")} inside</span>`}
    </p>
    ${span.status_message && html`<p class="t-failed">${shown(span.status_message)}</p>`}
    <h3>Attributes</h3>
    ${attributes.length
      ? html`<${Pairs} pairs=${attributes} link=${(key, value) => similar(span, "span", key, value)} />`
      : html`<p class="t-muted">None.</p>`}
    ${events.length > 0 && html`<h3>Events <small>${events.length}</small></h3>${events.map((event, i) => html`<${Event} key=${i} event=${event} start=${start} />`)}`}
    ${links.length > 0 &&
    html`<h3>Links <small>${links.length}</small></h3>
      <ul class="t-links">
        ${links.map((link, i) => {
          return html`<li key=${i}>
            <a
              href=${`#/trace/${link.trace_id}?span=${link.span_id}`}
              onClick=${(event) => tree.byId.has(link.span_id) && (event.preventDefault(), goTo(link.span_id))}
              ><code>${link.trace_id.slice(0, 8)}…${link.span_id.slice(0, 8)}</code></a
            >
            <span class="t-muted">${sorted(link.attributes).map(([key, value]) => `${cut(key)}=${cut(whole(value))}`).join(" ")}</span>
          </li>`;
        })}
      </ul>`}
    <details class="t-sender">
      <summary><h3>Sent by</h3> <span class="t-muted">${cut(span.service)} · ${cut(span.scope || "no scope")}</span></summary>
      <${Pairs} pairs=${sorted(span.resource)} link=${(key, value) => similar(span, "resource", key, value)} />
    </details>
    <${Pairs} pairs=${[["span", span.span_id], ["parent", span.parent_id || "none"], ["start", `${moment(start)} (${clock(start)})`.replace(/ \(.*$/, "")]]} />
  </aside>`;
}
