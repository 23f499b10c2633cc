// The strip of a node: its newest cycles as columns, in each the five phases from top to bottom. A phase is the darker the
// longer it took, on a scale that is the same for all; one that was skipped is empty; a cycle that acted or failed has a cap.

import { count, ms, names, span } from "../format.js";
import { html, useRef } from "../lib/htm/preact.js";
import { summary } from "../live.js";

/** Pixels from one cell to the next. */
export const CELL = 15;

const LEVELS = [0.1, 0.5, 2, 10]; // Milliseconds.

const level = (duration) => LEVELS.filter((bound) => duration >= bound).length;

/** What became of a cycle, in a word. */
export function outcome(cycle) {
  if (!cycle.success) return "failed";
  if (cycle.actions.some((action) => action.success === false)) return "failed";
  if (cycle.actions.length) return "acted";
  return cycle.findings.length ? "found" : "idle";
}

// A cell never changes once its cycle has ended: it is drawn once, and kept in `drawn` for as long as the cycle is.
function cell(drawn, cycle, chosen, last, choose) {
  const known = drawn.get(cycle);
  if (known && known.chosen === chosen && known.last === last) return known.cell;
  const what = outcome(cycle);
  const label = `${cycle.node}, cycle ${cycle.cycle}, ${what}: ${cycle.line || "nothing to do"}; ${ms(cycle.duration_ms)}`;
  const made = html`<a
    key=${cycle.trace_id}
    class=${names("cell", what, chosen && "chosen")}
    href=${`#/trace/${cycle.trace_id}`}
    data-trace=${cycle.trace_id}
    tabindex=${chosen || last ? 0 : -1}
    aria-label=${label}
    onPointerEnter=${(event) => event.pointerType === "mouse" && choose(cycle)}
    onFocus=${() => choose(cycle)}
  >
    ${cycle.phases.map((phase) => html`<i class=${`${phase.phase} ${phase.state} h${level(phase.ms)}`}></i>`)}
  </a>`;
  drawn.set(cycle, { chosen, last, cell: made });
  return made;
}

function Said({ cycle, now }) {
  if (!cycle) return html`<p class="said muted">nothing to repair lately</p>`;
  const age = (now - Number(BigInt(cycle.start) / 1_000_000n)) / 1000;
  const failed = outcome(cycle) === "failed";
  const { done, why } = summary(cycle);
  return html`<p class="said">
    <a href=${`#/trace/${cycle.trace_id}`} title=${cycle.line}><i class=${names("cap", failed ? "failed" : "acted")} aria-hidden="true"></i>${done}${why && html`<span class="muted"> · ${why}</span>`}</a>
    <time class="muted">${age < 2 ? "just now" : `${span(age)} ago`}</time>
  </p>`;
}

/** `choose` has to be the same function at every call. */
export default function Strip({ node, cycles, room, latest, chosen, choose, now }) {
  const drawn = useRef(null);
  drawn.current ??= new WeakMap();
  const shown = cycles.slice(-room);
  const last = shown[shown.length - 1];
  return html`<div class=${names("row", !node.alive && "dead")}>
    <div class="node">
      <b>${node.id}</b>
      <span class="muted">${node.alive ? html`${count(last?.cycle ?? node.cycles ?? 0)}` : html`<span class="bad">crashed</span>`}</span>
    </div>
    <div class="strip" role="group" aria-label=${`${node.id}: the last ${shown.length} cycles`}>
      ${shown.map((cycle) => cell(drawn.current, cycle, cycle.trace_id === chosen, !chosen && cycle === last, choose))}
    </div>
    <${Said} cycle=${latest} now=${now} />
  </div>`;
}
