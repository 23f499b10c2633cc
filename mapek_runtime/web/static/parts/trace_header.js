// The head of a trace: what it is, how long it took, where to go from it.

import { cut } from "../format.js";
import { html } from "../lib/htm/preact.js";
import { ago, count, duration, moment } from "./amounts.js";

async function copy(text, said, note) {
  try {
    await navigator.clipboard.writeText(text);
    note?.(`${said} is copied`);
  } catch {
    // Without a secure connection a browser gives no clipboard: what was to be copied is shown to be taken by hand.
    note?.(text);
  }
}

/** Save what the service gives as a file; a plain link could not carry the token. */
async function download(api, id, note) {
  const path = `/page/trace/${id}/otlp`;
  try {
    const blob = api.blob ? await api.blob(path) : await (await fetch(path)).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `trace-${id}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (error) {
    note?.(`The trace could not be downloaded: ${error.message}`, "bad");
  }
}

function Neighbour({ to, words, arrow, none, keys }) {
  const label = to?.cycle !== undefined && to ? `${words} ${to.cycle}` : words;
  return to
    ? html`<a class="t-step-link" href=${`#/trace/${to.trace}`} title=${`${none.replace(/^No /, "The ")} (${keys})`}>${arrow === "←" && "← "}${label}${arrow === "→" && " →"}</a>`
    : html`<span class="t-step-link t-none" title=${none}>${arrow === "←" && "← "}${words}${arrow === "→" && " →"}</span>`;
}

export function TraceHeader({ id, tree, story, neighbours, api, state, note, services }) {
  const root = tree.roots.find((node) => !node.orphan) ?? tree.roots[0];
  const jaeger = state?.jaeger ? `${state.jaeger.replace(/\/+$/, "")}/trace/${id}` : "";
  const failed = story ? story.success === false : tree.errors > 0;
  return html`<header class="t-head">
    <div class="t-head-line">
      <h1>${story?.root ? html`Cycle ${story.cycle} <span class="t-of">of ${cut(story.node)}</span>` : cut(root.span.name)}</h1>
      ${story?.root && html`<span class=${failed ? "t-badge" : "t-fine"}>${failed ? "failed" : "succeeded"}</span>`}
      ${story?.dryRun && html`<span class="t-tag">dry run</span>`}
      ${!story?.root && tree.errors > 0 && html`<span class="t-badge">${count(tree.errors, "error")}</span>`}
      <nav class="t-steps" aria-label="Cycles before and after">
        ${story?.root &&
        html`<${Neighbour} to=${neighbours.before} words="cycle" arrow="←" none="No cycle before" keys="[" />
          <${Neighbour} to=${neighbours.after} words="cycle" arrow="→" none="No cycle after" keys="]" />`}
      </nav>
    </div>
    <dl class="t-figures">
      ${story?.root && html`<div><dt>Root</dt><dd>${cut(root.span.name)}</dd></div>`}
      <div><dt>Service</dt><dd>${cut(services.join(", "), 1000)}</dd></div>
      <div><dt>Start</dt><dd title=${moment(tree.start)}>${moment(tree.start)} <span class="t-muted">${ago(tree.start)}</span></dd></div>
      <div><dt>Duration</dt><dd>${duration(tree.duration)}</dd></div>
      <div><dt>Spans</dt><dd>${tree.nodes.length.toLocaleString("en")}</dd></div>
      <div><dt>Errors</dt><dd class=${tree.errors ? "t-bad" : ""}>${tree.errors.toLocaleString("en")}</dd></div>
      <div><dt>Trace</dt><dd><code class="t-id">${id}</code></dd></div>
    </dl>
    ${neighbours.starters?.length > 0 &&
    html`<p class="t-starters t-muted">Also linked to: ${neighbours.starters.map(
      (one) => html`<a key=${one.span} href=${`#/trace/${one.trace}?span=${one.span}`}>${one.name ? cut(one.name) : `${one.trace.slice(0, 8)}…`}</a> `,
    )}</p>`}
    <div class="t-actions">
      ${jaeger && html`<a class="t-button" href=${jaeger} target="_blank" rel="noreferrer noopener">Open in Jaeger ↗</a>`}
      <button type="button" onClick=${() => copy(`{ trace:id = "${id}" }`, "The query", note)}>Copy as TraceQL</button>
      <button type="button" onClick=${() => copy(location.href, "The link", note)}>Copy link</button>
      <button type="button" onClick=${() => download(api, id, note)}>Download OTLP JSON</button>
    </div>
  </header>`;
}
