// What distinguishes the brushed spans from the others that the query chose: attributes, those that differ most
// first, with the share of each value on both sides. A click on a value narrows the query by it.

import { cut, percent } from "../format.js";
import { html, useEffect, useRef, useState } from "../lib/htm/preact.js";
import { count, now } from "./amounts.js";
import { around, narrowedBy } from "./narrow.js";

const SHOWN = 6; // Attributes; there are more behind a button.

/** What the service says of the difference for `asked`; null as long as nothing is brushed. */
function useDifference(api, asked) {
  const [found, setFound] = useState(null);
  const newest = useRef(0);
  // The time that `the last hour` means moves on; what is asked is the same.
  const key = JSON.stringify(around(asked, 0n));
  const ask = async () => {
    const number = ++newest.current;
    const given = around(asked, now());
    if (given === null) return setFound(null);
    setFound((was) => ({ ...was, busy: true, error: null }));
    try {
      const told = await api.get(`/page/difference?${new URLSearchParams(given)}`);
      if (number === newest.current) setFound({ told, busy: false, error: null });
    } catch (error) {
      if (number === newest.current) setFound({ told: null, busy: false, error });
    }
  };
  useEffect(() => {
    ask();
  }, [key]);
  useEffect(() => () => void (newest.current = -1), []);
  return [found, ask];
}

const WORDS = { absent: "not there" };

function Value({ field, value, told, narrow }) {
  const [here, there] = [value.selected / told.selected, value.rest / told.rest];
  const text = value.kind in WORDS ? WORDS[value.kind] : cut(value.text, 80) || "empty";
  const query = value.condition ? narrow(value.condition) : null;
  const shares = `${percent(here)} of the selected, ${percent(there)} of the others`;
  return html`<li>
    <button
      type="button"
      class=${here >= there ? "t-diff-value t-diff-more" : "t-diff-value"}
      disabled=${query === null}
      title=${query === null ? `${cut(value.text)}: ${shares}` : `Narrow the query by ${cut(value.condition)}`}
      aria-label=${`${field} ${text}: ${shares}`}
      onClick=${() => (location.hash = query)}
    >
      <span class=${value.kind === "absent" ? "t-diff-text t-muted" : "t-diff-text"}>${text}</span>
      <span class="t-diff-bars" aria-hidden="true">
        <i class="t-diff-here" style=${{ width: `${here * 100}%` }}></i>
        <i class="t-diff-there" style=${{ width: `${there * 100}%` }}></i>
      </span>
      <span class="t-diff-shares"><b>${percent(here, 0)}</b><span>${percent(there, 0)}</span></span>
    </button>
  </li>`;
}

function Attribute({ field, told, narrow }) {
  return html`<li class="t-diff-field">
    <h3>${cut(field.field, 80)}</h3>
    <ul>
      ${field.values.map((value) => html`<${Value} key=${value.kind + value.text} field=${field.field} value=${value} told=${told} narrow=${narrow} />`)}
    </ul>
    ${field.more > 0 && html`<p class="t-muted">and ${count(field.more, "more value")}</p>`}
    ${field.alike.length > 0 &&
    html`<p class="t-muted t-diff-alike" title=${cut(field.alike.join("\n"), 2000)}>
      The same spans: ${field.alike.slice(0, 4).map((name) => cut(name, 60)).join(", ")}${field.alike.length > 4 ? ` and ${field.alike.length - 4} more` : ""}
    </p>`}
  </li>`;
}

function Answer({ told, narrow }) {
  const [all, setAll] = useState(false);
  if (!told.enough)
    return html`<p>
      Too few spans to compare: ${told.selected} selected, ${told.rest} others. At least 10 of each are needed; draw the bounds wider, or choose
      a longer time.
    </p>`;
  if (!told.fields.length)
    return html`<p>Nothing is different: no attribute tells the selected spans from the others by more than chance.</p>`;
  const shown = all ? told.fields : told.fields.slice(0, SHOWN);
  return html`<ol class="t-diff-fields">
      ${shown.map((field) => html`<${Attribute} key=${field.field} field=${field} told=${told} narrow=${narrow} />`)}
    </ol>
    ${told.fields.length > shown.length &&
    html`<p class="t-more"><button type="button" onClick=${() => setAll(true)}>${count(told.fields.length - shown.length, "more attribute")}</button></p>`}`;
}

export function Difference({ api, asked, link }) {
  const [found, ask] = useDifference(api, asked);
  if (found === null) return null;
  const { told, busy, error } = found;
  const narrow = (condition) => {
    const query = narrowedBy(asked.q, told.query, condition);
    return query === null ? null : link({ q: query });
  };
  return html`<section class="t-different" aria-label="What is different here" aria-busy=${busy ? "true" : "false"}>
    <header>
      <h2>What is different here</h2>
      ${told?.enough &&
      html`<p class="t-diff-legend">
        <span><i class="t-diff-here"></i>${count(told.selected, "selected span")}</span>
        <span><i class="t-diff-there"></i>${count(told.rest, "other")}</span>
        ${!told.complete && html`<span title="There are more than are compared at once, or the time ran out">some of more</span>`}
      </p>`}
    </header>
    ${error && html`<p role="alert">${error.message} <button type="button" class="link" onClick=${ask}>Try again</button></p>`}
    ${told ? html`<div class=${busy ? "t-stale" : ""}><${Answer} told=${told} narrow=${narrow} /></div>` : !error && html`<p class="t-muted">Comparing…</p>`}
  </section>`;
}
