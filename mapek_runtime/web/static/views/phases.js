// How long the phases take: p50, p95 and p99 over time for each operation of the loop, and for any other.

import { count, cut, ms, names, percent } from "../format.js";
import { html, useEffect, useMemo, useState } from "../lib/htm/preact.js";
import Chart from "../parts/chart.js";

const RANGES = [
  [900, "15 min"],
  [3_600, "1 h"],
  [21_600, "6 h"],
  [86_400, "1 d"],
  [604_800, "7 d"],
];
const ORDER = ["mape_k.cycle", "mape_k.monitor", "mape_k.analyze", "mape_k.plan", "mape_k.execute", "mape_k.knowledge"];
const AGAIN = 10_000; // Milliseconds.
const POINTS = 120;
const SHORTEST = 300; // Seconds that a chart shows at least.

/** Seconds between two points: whole minutes, because that is how they are kept. */
const stepOf = (range) => Math.max(60, Math.ceil(range / POINTS / 60) * 60);

const toneOf = (name) => (ORDER.indexOf(name) > 0 ? name.slice("mape_k.".length) : "accent");
const keyOf = (series) => `${series.service} ${series.name} ${series.kind}`;
const rank = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);

/** Nanoseconds to milliseconds; a gap where nothing ran, so that no line is drawn across it. */
function pointsOf(series, step) {
  const made = [];
  for (const point of series.points) {
    const start = Number(BigInt(point.start) / 1_000_000n) / 1000;
    const last = made[made.length - 1];
    if (last && start - last.start > step * 1.5) made.push({ start: last.start + step, p50: null, p95: null, p99: null });
    made.push({ start, spans: point.spans, errors: point.errors, p50: point.p50 / 1e6, p95: point.p95 / 1e6, p99: point.p99 / 1e6 });
  }
  return made;
}

const path = (range, step) => {
  const end = BigInt(Date.now()) * 1_000_000n;
  const start = end - BigInt(range) * 1_000_000_000n;
  return `/page/latencies?start=${start}&end=${end}${step ? `&step=${step}` : ""}`;
};

/** The whole of the time and its course, asked again while the page follows. */
function useLatencies(api, range, paused) {
  const [answer, setAnswer] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    let timer = null;
    const step = stepOf(range);
    const ask = async () => {
      try {
        const to = Date.now() / 1000;
        const [course, whole] = await Promise.all([api.get(path(range, step), abort), api.get(path(range), abort)]);
        // A service that began just now has not much of a past: its points are not pressed to the edge.
        const first = Math.min(...course.series.flatMap((one) => one.points.slice(0, 1).map((point) => Number(BigInt(point.start) / 1_000_000_000n))));
        const from = Math.max(to - range, Math.min(first - step, to - SHORTEST));
        setAnswer({ range, step, from, to, course: course.series, whole: whole.series });
        setError(null);
      } catch (problem) {
        if (problem.name === "AbortError") return;
        setError(problem);
      }
      if (!paused && !abort.signal.aborted) timer = setTimeout(ask, AGAIN);
    };
    ask();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [range, paused]);
  return [answer, error];
}

function Panel({ series, whole, answer, remove }) {
  const [at, setAt] = useState(null);
  const points = useMemo(() => pointsOf(series, answer.step), [series, answer.step]);
  const total = whole?.points[0];
  const one = (at !== null && points[at]) || null;
  const shown = one ?? (total && { p50: total.p50 / 1e6, p95: total.p95 / 1e6, p99: total.p99 / 1e6, spans: total.spans });
  const tone = toneOf(series.name);
  const label = `${cut(series.name)}: p50 ${ms(shown?.p50)}, p95 ${ms(shown?.p95)}, p99 ${ms(shown?.p99)}`;
  return html`<section class="card panel" aria-label=${cut(series.name)}>
    <header class="head">
      <h2><i class=${`swatch ${tone}`}></i>${cut(series.name)}</h2>
      ${remove && html`<button class="link" onClick=${remove} aria-label=${`Remove the chart of ${cut(series.name)}`}>Remove</button>`}
    </header>
    <dl class="three">
      ${["p50", "p95", "p99"].map((p) => html`<div key=${p}><dt><i class=${`dash ${p} ${tone}`}></i>${p}</dt><dd>${ms(shown?.[p])}</dd></div>`)}
      <div class="when muted"><dt class="hidden">when</dt><dd>${one ? new Date(one.start * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }) : "all"}</dd></div>
    </dl>
    <${Chart} points=${points} tone=${tone} from=${answer.from} to=${answer.to} label=${label} show=${setAt} />
  </section>`;
}

function Row({ series, shown, toggle }) {
  const total = series.points.reduce((sum, point) => ({ spans: sum.spans + point.spans, errors: sum.errors + point.errors }), { spans: 0, errors: 0 });
  const point = series.points[series.points.length - 1] ?? {};
  const fixed = ORDER.includes(series.name);
  const query = `{ name = ${JSON.stringify(series.name)} && resource.service.name = ${JSON.stringify(series.service)} }`;
  return html`<tr>
    <th scope="row"><a href=${`#/search?q=${encodeURIComponent(query)}`}>${cut(series.name)}</a></th>
    <td class="muted roomy">${series.service}</td>
    <td class="muted roomy">${series.kind}</td>
    <td class="number">${count(total.spans)}</td>
    <td class=${names("number", total.errors > 0 && "bad")}>${total.errors ? `${count(total.errors)} (${percent(total.errors / total.spans)})` : "0"}</td>
    <td class="number">${ms(point.p50 / 1e6)}</td>
    <td class="number">${ms(point.p95 / 1e6)}</td>
    <td class="number">${ms(point.p99 / 1e6)}</td>
    <td>${fixed ? html`<span class="muted">shown</span>` : html`<button class="link" aria-pressed=${shown} aria-label=${`Chart of ${cut(series.name)}`} onClick=${toggle}>${shown ? "hide" : "chart"}</button>`}</td>
  </tr>`;
}

export default function Phases({ route, api, paused }) {
  const wanted = Number(route.params.get("range"));
  const range = RANGES.some(([seconds]) => seconds === wanted) ? wanted : RANGES[0][0];
  const more = route.params.getAll("op");
  const [answer, error] = useLatencies(api, range, paused);

  const go = (seconds, operations) => {
    const params = new URLSearchParams();
    if (seconds !== RANGES[0][0]) params.set("range", seconds);
    for (const name of operations) params.append("op", name);
    const text = params.toString();
    location.hash = `#/phases${text ? `?${text}` : ""}`;
  };
  const toggle = (key) => go(range, more.includes(key) ? more.filter((one) => one !== key) : [...more, key]);

  const sorted = useMemo(() => [...(answer?.whole ?? [])].sort((a, b) => rank(a.name) - rank(b.name) || a.name.localeCompare(b.name)), [answer]);
  const panels = (answer?.course ?? [])
    .filter((series) => ORDER.includes(series.name) || more.includes(keyOf(series)))
    .sort((a, b) => rank(a.name) - rank(b.name) || a.name.localeCompare(b.name));

  return html`<div class="view phases">
    <header class="title-row">
      <h1>Phases</h1>
      <div class="choice" role="group" aria-label="How far back">
        ${RANGES.map(([seconds, label]) => html`<button key=${seconds} aria-pressed=${seconds === range} onClick=${() => go(seconds, more)}>${label}</button>`)}
      </div>
      <label class="pick">
        <span>Chart also</span>
        <select value="" onChange=${(event) => event.target.value && toggle(event.target.value)}>
          <option value="">an operation…</option>
          ${sorted.filter((one) => !ORDER.includes(one.name) && !more.includes(keyOf(one))).map((one) => html`<option key=${keyOf(one)} value=${keyOf(one)}>${cut(one.name)} · ${cut(one.service)}</option>`)}
        </select>
      </label>
    </header>
    ${error && html`<section class="notice" role="alert"><h2>The durations cannot be had</h2><p>${error.message}.</p><p>They come from the trace store: it is on unless <code>store.enabled</code> is false.</p></section>`}
    ${answer && !panels.length && !error && html`<section class="notice"><h2>Nothing was stored in this time</h2><p>Choose a longer time, or wait: spans arrive here a few seconds after they ended.</p></section>`}
    ${!answer && !error && html`<p class="waiting">Reading the store…</p>`}
    <div class="panels">
      ${panels.map((series) => html`<${Panel} key=${keyOf(series)} series=${series} whole=${answer.whole.find((one) => keyOf(one) === keyOf(series))} answer=${answer} remove=${more.includes(keyOf(series)) ? () => toggle(keyOf(series)) : null} />`)}
    </div>
    ${sorted.length > 0 &&
    html`<section class="card tables">
      <header class="head"><h2>Operations</h2><span class="muted">over ${RANGES.find(([seconds]) => seconds === answer.range)[1]}</span></header>
      <div class="scroll">
        <table>
          <caption class="hidden">Operations: spans, errors and percentiles of their durations</caption>
          <thead><tr><th scope="col">Operation</th><th scope="col" class="roomy">Service</th><th scope="col" class="roomy">Kind</th><th scope="col" class="number">Spans</th><th scope="col" class="number">Errors</th><th scope="col" class="number">p50</th><th scope="col" class="number">p95</th><th scope="col" class="number">p99</th><th scope="col"><span class="hidden">Chart</span></th></tr></thead>
          <tbody>${sorted.map((series) => html`<${Row} key=${keyOf(series)} series=${series} shown=${more.includes(keyOf(series))} toggle=${() => toggle(keyOf(series))} />`)}</tbody>
        </table>
      </div>
    </section>`}
  </div>`;
}
