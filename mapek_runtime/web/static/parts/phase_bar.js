// The five phases of a cycle as one bar: how its time was shared.

import { html } from "../lib/htm/preact.js";
import { duration } from "./amounts.js";

export function PhaseBar({ story, goTo }) {
  const total = story.phases.reduce((sum, phase) => sum + phase.duration, 0) || 1;
  return html`<div class="t-phases" role="group" aria-label="The phases of the cycle">
    ${story.phases.map(({ phase, span, duration: took, state, reason }) => {
      const told = state === "absent" ? "no span" : state === "skipped" ? "skipped" : duration(took);
      return html`<button
        key=${phase}
        type="button"
        class=${`t-phase t-lane-${phase} t-phase-${state}`}
        style=${{ flexGrow: Math.max(0.06, took / total) }}
        disabled=${!span}
        title=${`${phase}: ${told}${reason ? ` (${reason})` : ""}`}
        onClick=${() => goTo(span.span_id)}
      ><i></i><span>${phase}${state === "failed" ? " ✕" : ""}</span><b>${told}</b></button>`;
    })}
  </div>`;
}
