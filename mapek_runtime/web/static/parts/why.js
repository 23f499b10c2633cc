// Why it decided so: the story of a cycle, phase by phase, from what was seen to what was learned.

import { html } from "../lib/htm/preact.js";
import { count, duration, number } from "./amounts.js";
import { Bullet, amount } from "./bullet.js";
import { observed } from "./story.js";

const TITLES = { monitor: "Seen", analyze: "Concluded", plan: "Decided", execute: "Done", knowledge: "Learned" };

const percent = (share) => `${number(Math.round(share * 1000) / 10)} %`;

function Finding({ finding }) {
  return html`<li class=${finding.anomaly ? "t-card-item" : "t-card-item t-calm"}>
    <p><b>${finding.problem}</b> <span class="t-target">${finding.target}</span></p>
    ${finding.message && html`<p>${finding.message}</p>`}
    ${finding.evidence.map(
      (e, i) => html`<div class="t-evidence" key=${i}>
        <div class="t-evidence-said">
          <code>${e.metric}</code>
          <span><b>${amount(e.metric, e.value, e.unit)}</b> <span class="t-muted">threshold ${amount(e.metric, e.threshold, e.unit)}</span></span>
        </div>
        <${Bullet} ...${e} anomaly=${finding.anomaly} />
        ${e.rule && html`<p class="t-muted">${e.rule}</p>`}
      </div>`,
    )}
    <p class="t-muted t-sure">
      ${typeof finding.confidence === "number" && html`<span>sure to ${finding.confidence > 0.9995 && finding.confidence < 1 ? "> 99.9 %" : percent(finding.confidence)}</span>`}
      ${typeof finding.severity === "number" && html`<span>severity ${number(finding.severity)}</span>`}
    </p>
  </li>`;
}

function Chosen({ option }) {
  const experience = [];
  if (typeof option.successRate === "number") experience.push(`it helped in ${percent(option.successRate)} of the times so far`);
  if (typeof option.repairSeconds === "number") experience.push(`repairs by it took ${duration(option.repairSeconds * 1e9)}`);
  return html`<li class="t-card-item t-chosen-option">
    <p><i class="t-mark-yes" aria-hidden="true">✓</i><b>${option.action}</b> <span class="t-target">${option.target}</span></p>
    ${option.reason && html`<p>because ${option.reason}${option.problem && !option.reason.includes(option.problem) ? html` <span class="t-muted">(${option.problem})</span>` : ""}</p>`}
    <p class="t-muted">${experience.length ? `Experience: ${experience.join("; ")}.` : "No experience with it yet."}</p>
    ${option.parameters.length > 0 && html`<p class="t-muted">${option.parameters.map(([key, value]) => `${key} = ${value}`).join(", ")}</p>`}
  </li>`;
}

function Rejected({ option }) {
  return html`<li class="t-card-item t-rejected-option">
    <p><i class="t-mark-no" aria-hidden="true">✕</i><b>${option.action}</b> <span class="t-target">${option.target}</span>
      <span class=${option.rail ? "t-rule t-rail" : "t-rule"} title=${option.rail ? "A guard rail of the loop" : "A reason of the domain"}>${option.rail ? "guard rail: " : ""}${option.rule}</span></p>
    ${option.reason && option.reason !== option.rule && html`<p class="t-muted">${option.reason}</p>`}
  </li>`;
}

function Done({ action }) {
  const failed = action.success === false;
  return html`<li class="t-card-item">
    <p><i class=${failed ? "t-mark-no" : "t-mark-yes"} aria-hidden="true">${failed ? "✕" : "✓"}</i><b>${action.action}</b>
      <span class="t-target">${action.target}</span> <span class="t-muted">${failed ? "failed" : "done"}${typeof action.milliseconds === "number" ? ` in ${duration(action.milliseconds * 1e6)}` : ""}</span></p>
    ${action.changed && html`<p>${action.changed}</p>`}
    ${action.error && html`<p class="t-failed">${action.error}</p>`}
  </li>`;
}

function Insight({ insight }) {
  return html`<li class="t-card-item">
    <p><b>${insight.insight}</b> ${insight.target && html`<span class="t-target">${insight.target}</span>`}</p>
    <p>${insight.message || (typeof insight.value === "number" ? number(insight.value) : "")}</p>
    ${insight.link && html`<p><a href=${`#/trace/${insight.link.trace_id}?span=${insight.link.span_id}`}>The action that it is about</a></p>`}
  </li>`;
}

function Seen({ story }) {
  const figures = observed(story);
  return html`<li class="t-card-item">
    ${story.trigger && html`<p class="t-muted">Started by: <span class="t-fg">${story.trigger}</span></p>`}
    ${figures.length
      ? figures.map(([key, value]) => html`<p key=${key}><b>${number(value)}</b> <span class="t-muted">${key.replaceAll("_", " ").replace(/ count$/, "")}</span></p>`)
      : html`<p class="t-muted">No figure is on the span.</p>`}
  </li>`;
}

const NOTHING = {
  analyze: "Nothing was found: every reading is within its threshold.",
  plan: "There was nothing to decide.",
  execute: "Nothing was to be done.",
  knowledge: "Nothing new was learned.",
};

function items(phase, story) {
  if (phase === "monitor") return [html`<${Seen} story=${story} />`];
  if (phase === "analyze") return story.findings.map((finding, i) => html`<${Finding} key=${i} finding=${finding} />`);
  if (phase === "plan") {
    return [
      ...story.chosen.map((option, i) => html`<${Chosen} key=${`c${i}`} option=${option} />`),
      ...story.rejected.map((option, i) => html`<${Rejected} key=${`r${i}`} option=${option} />`),
    ];
  }
  if (phase === "execute") return story.actions.map((action, i) => html`<${Done} key=${i} action=${action} />`);
  return story.insights.map((insight, i) => html`<${Insight} key=${i} insight=${insight} />`);
}

/** The story in a sentence. */
export function sentence(story) {
  const found = story.findings.length ? `${count(story.findings.length, "finding")}` : "nothing found";
  const rails = story.rejected.filter((option) => option.rail).length;
  const parts = [found];
  if (story.chosen.length) parts.push(`${count(story.chosen.length, "option")} chosen`);
  if (story.rejected.length) parts.push(`${story.rejected.length} rejected${rails ? `, ${rails} by a guard rail` : ""}`);
  if (story.dryRun) parts.push("dry run: nothing done");
  else if (story.actions.length) parts.push(`${count(story.actions.length, "action")} carried out`);
  if (story.insights.length) parts.push(`${count(story.insights.length, "insight")}`);
  return parts.join(", ");
}

export function Why({ story, goTo }) {
  return html`<section class="t-why" aria-labelledby="t-why-title">
    <h2 id="t-why-title">Why it decided so</h2>
    <p class="t-muted t-why-brief">${sentence(story)}.</p>
    <ol class="t-story">
      ${story.phases.map(({ phase, span, duration: took, state, reason }) => {
        const told = items(phase, story);
        return html`<li key=${phase} class=${`t-step t-lane-${phase} t-step-${state}`}>
          <header>
            <h3>${TITLES[phase]}</h3>
            ${span
              ? html`<button type="button" class="t-step-span" onClick=${() => goTo(span.span_id)} title="Show the span">${phase} <b>${duration(took)}</b></button>`
              : html`<span class="t-muted">${phase}: no span</span>`}
          </header>
          ${(state === "failed" || state === "skipped") && html`<p class=${state === "failed" ? "t-failed" : "t-muted"}>${state}${reason ? `: ${reason}` : ""}</p>`}
          ${told.length
            ? html`<ul>${told}</ul>`
            : state === "ok" && html`<p class="t-muted">${story.dryRun && phase === "execute" ? "A dry run: what was decided was not done." : NOTHING[phase]}</p>`}
        </li>`;
      })}
    </ol>
  </section>`;
}
