// How the service itself is: where every span is, how late the event loop was, how large the store has become.

import { bytes, clock, count, ms, names, percent, short, span } from "../format.js";
import { html } from "../lib/htm/preact.js";
import Law from "../parts/law.js";
import Sparkline from "../parts/sparkline.js";

/** Spans a second, from one sample to the next. */
function rates(samples, of) {
  const made = [];
  for (let n = 1; n < samples.length; n += 1) {
    const seconds = (samples[n].at - samples[n - 1].at) / 1000;
    const difference = of(samples[n]) - of(samples[n - 1]);
    made.push(seconds > 0.2 && difference >= 0 ? difference / seconds : (made[made.length - 1] ?? 0));
  }
  return made;
}

/** The mean of the last few: one second alone is restless. */
const recent = (values) => (values.length ? values.slice(-5).reduce((sum, value) => sum + value, 0) / Math.min(5, values.length) : null);

function Gauge({ title, value, detail, values, tone, label }) {
  return html`<section class="card gauge" aria-label=${title}>
    <h2>${title}</h2>
    <p class=${names("value", tone)}>${value}</p>
    <p class="muted detail">${detail}</p>
    <${Sparkline} values=${values} label=${label} />
  </section>`;
}

export default function Health({ state }) {
  const health = state.health;
  if (!health) {
    return html`<section class="notice"><h1>Nothing is known of the service yet</h1><p>It tells how it is once a second.</p></section>`;
  }
  const { samples } = state;
  const lag = health.loop_lag_ms ?? {};
  const spans = rates(samples, (one) => one.ended);
  const stored = rates(samples, (one) => one.stored ?? 0);
  const { store } = health;
  const faults = Object.entries(health.faults ?? {}).filter(([, n]) => n);
  const old = store?.oldest ? (Date.now() + state.skew - Number(BigInt(store.oldest) / 1_000_000n)) / 1000 : null;
  return html`<div class="view health">
    <header class="title-row">
      <h1>Health</h1>
      <span class=${names("tag", health.status === "ok" ? "ok" : "bad")}>${health.status}</span>
      <span class="muted">${state.service} ${state.version}, up since ${clock(state.started).slice(0, 8)}</span>
    </header>
    <div class="gauges">
      <${Gauge} title="Spans" value=${`${recent(spans) === null ? "–" : short(Math.round(recent(spans)))} /s`} detail=${`${count(health.spans?.ended)} ended`} values=${spans} label="Spans a second over the last minutes" />
      <${Gauge}
        title="Loop lag"
        value=${ms(lag.p99 ?? NaN)}
        detail=${`p99; p50 ${ms(lag.p50 ?? lag.median ?? NaN)}, worst ${ms(lag.max ?? NaN)}`}
        values=${samples.map((one) => one.lag.p99 ?? 0)}
        tone=${lag.p99 > 100 ? "bad" : lag.p99 > 25 ? "warn" : ""}
        label="p99 of the loop lag over the last minutes"
      />
      ${store
        ? html`<${Gauge} title="Store" value=${bytes(store.bytes)} detail=${`${count(store.spans)} spans${old !== null ? `, the oldest ${span(old)} old` : ""}`} values=${stored} label="Spans stored a second over the last minutes" />`
        : html`<section class="card gauge" aria-label="Store"><h2>Store</h2><p class="value muted">off</p><p class="muted detail">Traces are not kept here. <code>store.enabled = true</code> keeps them.</p></section>`}
      <${Gauge} title="CPU" value=${health.cpu == null ? "–" : percent(health.cpu)} detail="of one core, the whole service" values=${samples.map((one) => one.cpu ?? 0)} label="Share of a core over the last minutes" />
    </div>
    ${faults.length > 0 &&
    html`<section class="card"><header class="head"><h2>Faults of tracing</h2></header>
      <dl class="pairs">${faults.map(([what, n]) => html`<div class="pair" key=${what}><dt>${what.replaceAll("_", " ")}</dt><dd>${typeof n === "number" ? count(n) : JSON.stringify(n)}</dd></div>`)}</dl></section>`}
    <p class="muted explain">Every span that ended is in one place: what came in and where it is are two bars of the same length, or spans were lost.</p>
    <div class="laws">
      ${health.spans && html`<${Law} name="The processor" account=${health.spans} />`}
      ${Object.entries(health.sinks ?? {}).map(([name, account]) => html`<${Law} key=${name} name=${name} account=${account} />`)}
      ${!Object.keys(health.sinks ?? {}).length && html`<section class="card law"><header class="head"><h2>No sink</h2></header><p class="muted none">Spans go nowhere. The store and <code>OTEL_EXPORTER_OTLP_ENDPOINT</code> are sinks.</p></section>`}
    </div>
  </div>`;
}
