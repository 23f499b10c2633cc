// A value against its threshold, drawn as a bullet chart: the bar is the value, the line the threshold.

import { html } from "../lib/htm/preact.js";
import { number } from "./amounts.js";

const SHARE = /loss|ratio|share|rate/;

/** A value of a metric as people read it: shares in percent, units of UCUM without their braces. */
export function amount(metric, value, unit) {
  const plain = unit.replace(/^\{(.*)\}$/, "$1");
  if ((plain === "1" || plain === "") && SHARE.test(metric) && Math.abs(value) <= 1) return `${number(value * 100)} %`;
  if (plain === "1" || plain === "") return number(value);
  return `${number(value)} ${plain}${plain.length > 3 && Math.abs(value) !== 1 && /[a-z]$/.test(plain) && unit.startsWith("{") ? "s" : ""}`;
}

export function Bullet({ metric, value, threshold, unit, anomaly }) {
  const known = Number.isFinite(value) && Number.isFinite(threshold);
  if (!known) return null;
  const most = Math.max(Math.abs(value), Math.abs(threshold)) * 1.12 || 1;
  const at = (x) => Math.max(0, Math.min(100, (Math.abs(x) / most) * 100));
  const over = anomaly && Math.abs(value) >= Math.abs(threshold);
  const label = `${metric} is ${amount(metric, value, unit)}, the threshold is ${amount(metric, threshold, unit)}`;
  return html`<div class=${over ? "t-bullet t-bullet-over" : "t-bullet"} role="img" aria-label=${label} title=${label}>
    <i class="t-bullet-value" style=${{ width: `${at(value)}%` }}></i>
    <i class="t-bullet-threshold" style=${{ left: `${at(threshold)}%` }}></i>
  </div>`;
}
