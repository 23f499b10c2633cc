// Why a cycle decided as it did, read from the events on its phase spans. Pure; the events and their
// attributes are those that loop/explain.py writes.

import { cut } from "../format.js";
import { phaseOf } from "./tree.js";

export const PHASES = ["monitor", "analyze", "plan", "execute", "knowledge"];

/** Rules of the loop's own guard rails, as against reasons of the domain that planned. */
const RAILS = new Set([
  "halted", "escalated", "one at a time", "pending", "cooldown", "hysteresis", "budget", "fleet share",
]);
const LONGEST = 2_000;
const railed = (rule) => RAILS.has(rule) || rule.endsWith(" guard");

const of = (span, name) => (span?.events ?? []).filter((e) => e.name === name).map((e) => e.attributes ?? {});

/** A value that is to be a text: the attributes of a sender of ours are, those of others may be anything. */
const text = (value) =>
  value === undefined || value === null ? "" : cut(typeof value === "object" ? JSON.stringify(value) : String(value), LONGEST);

const list = (value) => (Array.isArray(value) ? value : value === undefined || value === null ? [] : [value]);

function evidence(finding) {
  const metrics = list(finding["evidence.metric"]);
  const at = (key, i) => list(finding[`evidence.${key}`])[i];
  return metrics.map((metric, i) => ({
    metric: text(metric),
    value: Number(at("value", i)),
    threshold: Number(at("threshold", i)),
    unit: text(at("unit", i)),
    rule: text(at("rule", i)),
  }));
}

const MADE_OF = new Set(["action", "target", "reason", "problem", "success_rate", "repair_seconds"]);

function parameters(option) {
  const out = [];
  for (const [key, value] of Object.entries(option)) {
    const name = key.replace(/^parameter\./, "");
    // The planner's own copy of the experience is shown as experience.
    if (key.startsWith("parameter.") && !MADE_OF.has(name)) out.push([name, text(value)]);
  }
  return out;
}

/** The story of the cycle in these spans; null when none is a phase. */
export function storyOf(spans) {
  const root = spans.find((span) => span.name === "mape_k.cycle");
  const phases = {};
  for (const span of spans) {
    const phase = phaseOf(span);
    if (!phase || phases[phase]) continue;
    // A trace may hold phases of other cycles that it started: those of this root are told.
    if (root && span.parent_id !== root.span_id) continue;
    phases[phase] = span;
  }
  if (!Object.keys(phases).length) return null;
  const { analyze, plan, execute, knowledge } = phases;
  return {
    root,
    node: text(root?.attributes?.node_id ?? Object.values(phases)[0].attributes?.node_id),
    cycle: text(root?.attributes?.cycle),
    trigger: text(root?.attributes?.trigger),
    success: root ? root.attributes?.success !== false : undefined,
    dryRun: plan?.attributes?.dry_run === true,
    phases: PHASES.map((phase) => {
      const span = phases[phase];
      return {
        phase,
        span,
        duration: span ? Number(span.duration) : 0,
        state: !span
          ? "absent"
          : span.status === "error"
            ? "failed"
            : span.attributes?.skipped
              ? "skipped"
              : "ok",
        reason: text(span?.status_message || span?.attributes?.reason),
      };
    }),
    findings: of(analyze, "finding").map((f) => ({
      problem: text(f.problem),
      target: text(f.target),
      message: text(f.message),
      confidence: f.confidence,
      severity: f.severity,
      anomaly: f.anomaly !== false,
      evidence: evidence(f),
    })),
    chosen: of(plan, "option.chosen").map((o) => ({
      action: text(o.action),
      target: text(o.target),
      reason: text(o.reason),
      problem: text(o.problem),
      successRate: o.success_rate,
      repairSeconds: o.repair_seconds,
      parameters: parameters(o),
    })),
    rejected: of(plan, "option.rejected").map((o) => ({
      action: text(o.action),
      target: text(o.target),
      rule: text(o.rule),
      reason: text(o.reason),
      rail: railed(text(o.rule)),
    })),
    actions: of(execute, "action").map((a) => ({
      action: text(a.action),
      target: text(a.target),
      success: a.success,
      changed: text(a.changed),
      error: text(a.error),
      milliseconds: a.duration_ms,
    })),
    insights: of(knowledge, "insight").map((i) => ({
      insight: text(i.insight),
      target: text(i.target),
      value: i.value,
      message: text(i.message),
      link: (knowledge.links ?? []).find((l) => l.span_id === i["action.span_id"]) ?? null,
    })),
  };
}

/** What the cycle observed, in figures: the numbers on its monitor span. */
export function observed(story) {
  const monitor = story.phases[0].span;
  return Object.entries(monitor?.attributes ?? {}).filter(
    ([key, value]) => typeof value === "number" && key !== "cycle",
  );
}
