// What happened: faults, repairs and cycles that acted, newest first, each with the trace that shows it.

import { clock, names } from "../format.js";
import { icon } from "../icons.js";
import { html, useMemo } from "../lib/htm/preact.js";
import { explained, whereOf } from "../live.js";

const SHOWN = 80;

function sign(item) {
  if (item.name === "cycle") return item.success ? "acted" : "failed";
  if (item.name === "fault.injected") return "injected";
  if (item.name === "fault.healed") return "healed";
  if (item.name === "fault.cleared") return "cleared";
  return "other";
}

/** `line` with names such as node-1~node-3 kept whole: a browser would break them at every hyphen. */
const unbroken = (line) => line.split(/(\S*[-~]\S*)/).map((part, at) => (at % 2 ? html`<span class="unbroken">${part}</span>` : part));

function Item({ item }) {
  const kind = sign(item);
  const said = item.name === "cycle" ? html`<b>${item.node}</b> ${unbroken(item.done)}<small title=${item.line}>${item.why}</small>` : unbroken(item.line);
  const inside = html`<time>${clock(item.time).slice(0, -2)}</time>
    <span class=${names("sign", kind)}>${icon(kind)}</span>
    <span class="line">${said}</span>`;
  const where = whereOf(item);
  return where
    ? html`<li><a href=${where} title=${item.trace ? "Open the trace" : "Search for its traces"} data-event=${item.name}>${inside}${icon("arrow")}</a></li>`
    : html`<li><div data-event=${item.name}>${inside}</div></li>`;
}

export default function Happened({ items, faults, missed }) {
  const shown = useMemo(() => explained(items).slice(0, SHOWN), [items]);
  const force = (faults ?? []).length;
  return html`<section class="card happened" aria-label="What happened">
    <header class="head">
      <h2>What happened</h2>
      <span class=${force ? "tag bad" : "muted"}>${force ? `${force} fault${force > 1 ? "s" : ""} in force` : "no fault in force"}</span>
    </header>
    ${missed > 0 && html`<p class="muted missed">This page was too slow for ${missed} events; the figures are right all the same.</p>`}
    ${shown.length
      ? html`<ol class="events" tabindex="0" aria-label="Events, newest first">${shown.map((item) => html`<${Item} key=${item.id} item=${item} />`)}</ol>`
      : html`<p class="muted none">Nothing yet: no fault, no repair. ${"With "}<code>--chaos</code> faults come by themselves; on the <a href="#/mesh">mesh view</a> you can inject one.</p>`}
  </section>`;
}
