// What can be asked: examples to press, and both languages in a few lines.

import { html } from "../lib/htm/preact.js";

export const EXAMPLES = [
  ["Cycles and their phases", 'service="x0tta6bl4" AND span.kind="INTERNAL" AND name="mape_k.*"'],
  ["Slow handshakes", 'service="x0tta6bl4" AND name="spiffe.mtls_handshake" AND duration >= 50ms'],
  ["Proposals that failed", 'service="x0tta6bl4" AND name="dao.proposal_execute" AND success=false'],
  ["Slow inference", 'service="x0tta6bl4" AND name="ml.inference" AND latency_ms >= 100'],
  ["Monitoring of node-1", 'service="x0tta6bl4" AND name="mape_k.monitor" AND node_id="node-1"'],
  ["Cycles that acted", '{ name = "mape_k.cycle" && span.actions_executed > 0 }'],
  ["What went wrong", "{ status = error }"],
];

export function Examples({ use }) {
  return html`<div class="t-examples" role="group" aria-label="Examples">
    ${EXAMPLES.map(
      ([label, query]) =>
        html`<button key=${label} type="button" class="t-example" title=${query} onClick=${() => use(query)}>${label}</button>`,
    )}
  </div>`;
}

const ROWS = [
  ["service and name", 'service="x0tta6bl4" AND name="mape_k.*"', '{ resource.service.name = "x0tta6bl4" && name =~ "mape_k\\\\..*" }'],
  ["an attribute", 'node_id="node-1" AND success=false', '{ span.node_id = "node-1" && span.success = false }'],
  ["a duration", "duration >= 50ms", "{ duration >= 50ms }"],
  ["a number", "latency_ms >= 100", "{ span.latency_ms >= 100 }"],
  ["either, not", 'NOT (node_id="n1" OR node_id="n2")', '{ !(span.node_id = "n1" || span.node_id = "n2") }'],
  ["a span inside another", "", '{ name = "mape_k.execute" } >> { name = "mesh.routing" }'],
  ["how many in a trace", "", '{ name =~ "mesh.*" } | count() > 3'],
  ["show a value", "", "{ span.cycle > 10 } | select(span.cycle)"],
];

export function QueryHelp() {
  return html`<details class="t-help">
    <summary>How to ask</summary>
    <p>
      Two languages, told apart by themselves: words joined by <code>AND</code>, <code>OR</code> and <code>NOT</code>, in which a text
      may hold <code>*</code> and <code>?</code> for anything; and <b>TraceQL</b>, which begins with <code>{</code>. All conditions must
      hold of the same span. Nothing at all asks for every trace.
    </p>
    <div class="t-scroll">
      <table class="t-table">
        <thead><tr><th scope="col">To ask for</th><th scope="col">In words</th><th scope="col">In TraceQL</th></tr></thead>
        <tbody>
          ${ROWS.map(
            ([what, seed, traceql]) => html`<tr key=${what}>
              <th scope="row">${what}</th>
              <td>${seed ? html`<code>${seed}</code>` : html`<span class="t-muted">only in TraceQL</span>`}</td>
              <td><code>${traceql}</code></td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <p class="t-muted">
      In the field: ↓ ↑ choose a suggestion, Tab takes it, Enter searches. In the picture: drag to narrow time and duration, Esc
      takes the bounds away.
    </p>
  </details>`;
}
