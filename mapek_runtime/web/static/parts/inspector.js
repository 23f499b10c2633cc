// One cycle in a few lines: where its time went, what was found, done and refused. Its place is always there, so that
// nothing moves when a cycle is pointed at.

import { clock, count, ms, names } from "../format.js";
import { html } from "../lib/htm/preact.js";
import { outcome } from "./strip.js";

const WORDS = { failed: "failed", acted: "acted", found: "found something", idle: "nothing to do" };

function Line({ label, children }) {
  return html`<div class="pair"><dt>${label}</dt><dd>${children}</dd></div>`;
}

const joined = (items, draw) => items.map((item, at) => html`${at > 0 && html`<span class="muted"> · </span>`}${draw(item)}`);

function found(finding) {
  const sure = finding.confidence < 1 ? html` <span class="muted">${Math.round(finding.confidence * 100)} %</span>` : "";
  return html`<span title=${finding.message}>${finding.problem} ${finding.target}${sure}</span>`;
}

const done = (action) =>
  html`<span class=${action.success === false ? "bad" : ""}>${action.action} ${action.target}${action.error ? `: ${action.error}` : action.success === null ? " (not done)" : ""}</span>`;

const refused = (action) => html`<span title=${action.reason}>${action.action} ${action.target} <span class="muted">(${action.rule})</span></span>`;

export default function Inspector({ cycle, chosen, held }) {
  if (!cycle) {
    return html`<div class="inspector"><p class="muted">Point at a cycle, or press <kbd>j</kbd>, to see what is in it. The newest cycle that acted is shown here.</p></div>`;
  }
  const sum = cycle.phases.reduce((total, phase) => total + phase.ms, 0) || 1;
  const what = outcome(cycle);
  return html`<div class="inspector">
    <div class="title">
      <b>${cycle.node}</b> cycle ${cycle.cycle} <span class=${names("tag", what)}>${WORDS[what]}</span>
      <span class="muted about">${clock(cycle.start)} · ${ms(cycle.duration_ms)}${cycle.trigger ? ` · ${cycle.trigger}` : ""}</span>
      <a class="open" href=${`#/trace/${cycle.trace_id}`}>Open the trace</a>
      <span class="muted state-note">${held ? "the strips wait while you look" : chosen ? "" : "the newest that acted"}</span>
    </div>
    <div class="shares" aria-hidden="true">
      ${cycle.phases.map((phase) => html`<i key=${phase.phase} class=${`${phase.phase} ${phase.state}`} style=${{ flexGrow: Math.max(phase.ms / sum, 0.004) }}></i>`)}
    </div>
    <ul class="times">
      ${cycle.phases.map(
        (phase) => html`<li key=${phase.phase} title=${phase.reason}>
          <i class=${`swatch ${phase.phase}`}></i>${phase.phase}
          <b class=${phase.state === "failed" ? "bad" : ""}>${phase.state === "ok" ? ms(phase.ms) : phase.state}</b>
        </li>`,
      )}
    </ul>
    <dl class="pairs">
      <${Line} label="Found">${cycle.findings.length ? joined(cycle.findings, found) : html`<span class="muted">nothing</span>`}<//>
      <${Line} label="Done">${cycle.actions.length ? joined(cycle.actions, done) : html`<span class="muted">nothing</span>`}<//>
      <${Line} label="Refused">${cycle.rejected.length ? joined(cycle.rejected, refused) : html`<span class="muted">nothing</span>`}<//>
      ${cycle.more > 0 && html`<${Line} label="And">${count(cycle.more)} more, which the trace tells<//>`}
    </dl>
  </div>`;
}
