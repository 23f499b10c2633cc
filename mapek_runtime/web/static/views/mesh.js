// The mesh: who is connected to whom, how well, which fault is in force and what the loop did about it.

import { clock, count, ms, names, percent } from "../format.js";
import { html, useMemo, useState } from "../lib/htm/preact.js";
import { explained, whereOf } from "../live.js";
import Controls from "../parts/controls.js";
import Graph, { keyOf } from "../parts/graph.js";

const byNumber = (a, b) => a.localeCompare(b, "en", { numeric: true });

const WORDS = { up: "up", drained: "drained", down: "down" };

function Links({ links, looked, look }) {
  return html`<div class="scroll">
    <table>
      <caption class="hidden">Links: state, loss, round trip and fault</caption>
      <thead><tr><th scope="col">Link</th><th scope="col">State</th><th scope="col" class="number">Loss</th><th scope="col" class="number">Round trip</th><th scope="col">Fault</th></tr></thead>
      <tbody>
        ${links.map((link) => {
          const key = keyOf(link);
          return html`<tr key=${key} class=${names(looked === key && "looked")} onPointerEnter=${() => look(key)} onPointerLeave=${() => look("")}>
            <th scope="row">${link.a} – ${link.b}</th>
            <td><span class=${`state ${link.state}`}>${WORDS[link.state] ?? link.state}</span></td>
            <td class=${names("number", link.loss > 0.02 && "warn")}>${link.loss ? percent(link.loss, 0) : "0 %"}</td>
            <td class="number">${link.rtt ? ms(link.rtt * 1000) : "–"}</td>
            <td class="bad">${link.fault}</td>
          </tr>`;
        })}
      </tbody>
    </table>
  </div>`;
}

function Nodes({ nodes }) {
  return html`<div class="scroll">
    <table>
      <caption class="hidden">Nodes: cycles, failures, actions, refused actions</caption>
      <thead><tr><th scope="col">Node</th><th scope="col"></th><th scope="col" class="number">Cycles</th><th scope="col" class="number">Failed</th><th scope="col" class="number">Actions</th><th scope="col" class="number">Refused</th></tr></thead>
      <tbody>
        ${nodes.map(
          (node) => html`<tr key=${node.id}>
            <th scope="row">${node.id}</th>
            <td><span class=${node.alive ? "state up" : "state down"}>${node.alive ? (node.leads ? "leads" : "runs") : "crashed"}</span></td>
            <td class="number">${count(node.cycles)}</td>
            <td class=${names("number", node.failed > 0 && "bad")}>${count(node.failed)}</td>
            <td class="number">${count(node.actions)}</td>
            <td class="number">${count(node.refused)}</td>
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function Newest({ happened }) {
  const shown = useMemo(() => explained(happened).slice(0, 4), [happened]);
  return html`<ol class="newest" aria-label="What happened last">
    ${[0, 1, 2, 3].map((at) => {
      const item = shown[at];
      if (!item) return html`<li key=${at} class="muted">${at ? "" : "nothing has happened yet"}</li>`;
      const line = html`<time>${clock(item.time).slice(0, -2)}</time> ${item.name === "cycle" ? `${item.node} ${item.done}` : item.line}`;
      return html`<li key=${at} class=${item.name.replace(".", "-")}>${whereOf(item) ? html`<a href=${whereOf(item)}>${line}</a>` : line}</li>`;
    })}
  </ol>`;
}

export default function Mesh({ state, api, note }) {
  const [looked, look] = useState("");
  const nodes = useMemo(() => [...state.nodes].sort((a, b) => byNumber(a.id, b.id)), [state.nodes]);
  const links = useMemo(() => [...state.links].sort((a, b) => byNumber(keyOf(a), keyOf(b))), [state.links]);
  if (!links.length && !nodes.length) {
    return html`<section class="notice">
      <h1>No mesh here</h1>
      <p>No domain of this service tells who is connected to whom. A mesh to look at: <code>mapek run --nodes 5 --chaos</code>.</p>
    </section>`;
  }
  return html`<div class="view mesh">
    <h1 class="hidden">The mesh</h1>
    <section class="card picture" aria-label="Picture of the mesh">
      <${Graph} nodes=${nodes} links=${links} faults=${state.faults ?? []} happened=${state.happened} now=${Date.now() + state.skew} looked=${looked} look=${look} />
      <${Newest} happened=${state.happened} />
    </section>
    <${Controls} state=${state} api=${api} note=${note} />
    <section class="card tables">
      <header class="head"><h2>Links</h2></header>
      <${Links} links=${links} looked=${looked} look=${look} />
      <header class="head"><h2>Loops</h2></header>
      <${Nodes} nodes=${nodes} />
    </section>
  </div>`;
}
