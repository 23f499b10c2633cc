// Durations over time, on a logarithmic scale, with their distribution beside them. Dragging over it narrows
// the search in time, in duration, or in both.

import { cut } from "../format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/htm/preact.js";
import { clock, count, duration, moments } from "./amounts.js";

const HEIGHT = 190;
const EDGE = { left: 58, right: 84, top: 8, bottom: 22 };
const BIN = 5; // Pixels of duration that one bar of the distribution stands for.
const NEAR = 9; // Pixels within which a point is meant.

const SECOND = 1e9;

/** What is drawn where: times in nanoseconds since `base`, durations as logarithms. */
function scaleOf(spans, asked, width) {
  const starts = spans.map((span) => BigInt(span.start));
  const least = starts.reduce((a, b) => (b < a ? b : a), starts[0] ?? 0n);
  const most = starts.reduce((a, b) => (b > a ? b : a), starts[0] ?? asked.to ?? 0n);
  // Where nobody set a bound, the first and the last point stand a little inside.
  const edge = (most - least) / 60n + 1_000_000n;
  const from = asked.from ?? least - edge;
  const to = asked.to !== null && asked.to > from ? asked.to : most + edge;
  const logs = spans.map((span) => Math.log10(Math.max(1, Number(span.duration))));
  let low = logs.length ? Math.min(...bounds(logs)) : 5;
  let high = logs.length ? Math.max(...bounds(logs)) : 8;
  const margin = Math.max(0.15, (high - low) * 0.06);
  low -= margin;
  high += margin;
  const length = Math.max(1, Number(to - from));
  const inner = { w: Math.max(10, width - EDGE.left - EDGE.right), h: HEIGHT - EDGE.top - EDGE.bottom };
  return {
    from,
    length,
    low,
    high,
    inner,
    points: spans.map((span, i) => ({
      span,
      x: EDGE.left + (Number(starts[i] - from) / length) * inner.w,
      y: EDGE.top + inner.h - ((logs[i] - low) / (high - low)) * inner.h,
    })),
    y: (log) => EDGE.top + inner.h - ((log - low) / (high - low)) * inner.h,
    timeAt: (x) => from + BigInt(Math.round(((x - EDGE.left) / inner.w) * length)),
    durationAt: (y) => 10 ** (low + ((EDGE.top + inner.h - y) / inner.h) * (high - low)),
  };
}

// Math.min(...list) has a limit of arguments; two values say all of it.
const bounds = (list) => list.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);

function decades(low, high) {
  const whole = [];
  for (let at = Math.ceil(low); at <= Math.floor(high); at++) whole.push(at);
  if (whole.length >= 2) {
    const every = Math.ceil(whole.length / 5);
    return whole.filter((_, i) => i % every === 0);
  }
  return [0.15, 0.5, 0.85].map((share) => low + (high - low) * share);
}

function draw(canvas, scale, width) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(HEIGHT * ratio);
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  const { inner } = scale;
  const [x0, x1, y1] = [EDGE.left, EDGE.left + inner.w, EDGE.top + inner.h];
  pen.scale(ratio, ratio);
  pen.clearRect(0, 0, width, HEIGHT);
  pen.font = `11px ${style.fontFamily}`;
  pen.lineWidth = 1;
  pen.strokeStyle = colour("--line");
  pen.fillStyle = colour("--muted");
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const at of decades(scale.low, scale.high)) {
    const y = Math.round(scale.y(at)) + 0.5;
    pen.beginPath();
    pen.moveTo(x0, y);
    pen.lineTo(width - 2, y);
    pen.stroke();
    pen.fillText(duration(10 ** at), x0 - 7, y);
  }
  pen.textBaseline = "alphabetic";
  const many = Math.max(2, Math.min(7, Math.floor(inner.w / 110)));
  const short = scale.length < 5 * SECOND;
  for (const at of moments(scale.from, scale.length, many)) {
    const x = x0 + (at / scale.length) * inner.w;
    pen.textAlign = x < x0 + 30 ? "left" : x > x1 - 30 ? "right" : "center";
    pen.fillText(clock(scale.from + BigInt(Math.round(at)), short ? 3 : 0), x, HEIGHT - 6);
  }
  pen.beginPath();
  pen.moveTo(x0, y1 + 0.5);
  pen.lineTo(x1, y1 + 0.5);
  pen.stroke();

  const wrong = scale.points.filter((point) => point.span.status === "error");
  const rest = scale.points.filter((point) => point.span.status !== "error");
  const size = scale.points.length > 1500 ? 1.6 : scale.points.length > 300 ? 2.2 : 3;
  for (const [points, name, alpha] of [[rest, "--accent", scale.points.length > 1500 ? 0.35 : 0.55], [wrong, "--bad", 0.95]]) {
    pen.fillStyle = colour(name);
    pen.globalAlpha = alpha;
    for (const point of points) {
      pen.beginPath();
      pen.arc(point.x, point.y, name === "--bad" ? size + 0.8 : size, 0, 7);
      pen.fill();
    }
  }
  const bins = new Map();
  for (const point of scale.points) {
    const bin = Math.floor((point.y - EDGE.top) / BIN);
    const kept = bins.get(bin) ?? [0, 0];
    kept[point.span.status === "error" ? 1 : 0]++;
    bins.set(bin, kept);
  }
  const top = Math.max(1, ...[...bins.values()].map(([a, b]) => a + b));
  const room = EDGE.right - 14;
  for (const [bin, [fine, bad]] of bins) {
    const y = EDGE.top + bin * BIN;
    pen.globalAlpha = 0.75;
    pen.fillStyle = colour("--accent");
    const w = Math.max(1, (fine / top) * room);
    if (fine) pen.fillRect(x1 + 10, y, w, BIN - 1);
    pen.globalAlpha = 1;
    pen.fillStyle = colour("--bad");
    if (bad) pen.fillRect(x1 + 10 + (fine ? w : 0), y, Math.max(1.5, (bad / top) * room), BIN - 1);
  }
  pen.globalAlpha = 1;
}

const share = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];

export function Histogram({ spans, complete, from, to, brushed, open }) {
  const box = useRef(null);
  const canvas = useRef(null);
  const [width, setWidth] = useState(0);
  const [turn, redraw] = useState(0);
  const [drag, setDrag] = useState(null);
  const [near, setNear] = useState(null);

  useLayoutEffect(() => {
    const watch = new ResizeObserver(() => setWidth(Math.floor(box.current.clientWidth)));
    watch.observe(box.current);
    const repaint = () => redraw((n) => n + 1);
    window.addEventListener("mapek-theme", repaint);
    return () => (watch.disconnect(), window.removeEventListener("mapek-theme", repaint));
  }, []);
  const scale = useRef(null);
  useEffect(() => {
    if (!width) return;
    scale.current = scaleOf(spans, { from, to }, width);
    draw(canvas.current, scale.current, width);
    setNear(null);
  }, [spans, from, to, width, turn]);

  const at = (event) => {
    const edge = box.current.getBoundingClientRect();
    const { inner } = scale.current;
    return {
      x: Math.max(EDGE.left, Math.min(event.clientX - edge.left, EDGE.left + inner.w)),
      y: Math.max(EDGE.top, Math.min(event.clientY - edge.top, EDGE.top + inner.h)),
      rawX: event.clientX - edge.left,
    };
  };
  const nearest = ({ x, y }) => {
    let best = null;
    let distance = NEAR * NEAR;
    for (const point of scale.current.points) {
      const d = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (d < distance) [best, distance] = [point, d];
    }
    return best;
  };
  const begin = (event) => {
    if (event.button !== 0 || !scale.current) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    const where = at(event);
    setDrag({ from: where, to: where });
    setNear(null);
  };
  const move = (event) => {
    if (!scale.current) return;
    const where = at(event);
    if (drag) setDrag({ ...drag, to: where });
    else setNear(nearest(where));
  };
  const end = (event) => {
    if (!drag) return;
    setDrag(null);
    const a = drag.from;
    const b = at(event);
    // In the distribution only the duration is meant.
    const beside = a.rawX > EDGE.left + scale.current.inner.w + 4;
    const wide = !beside && Math.abs(a.x - b.x) > 7;
    const high = Math.abs(a.y - b.y) > 7;
    if (!wide && !high) {
      const point = nearest(b);
      if (point) open(point.span);
      return;
    }
    const bounds = {};
    if (wide) [bounds.from, bounds.to] = [scale.current.timeAt(Math.min(a.x, b.x)), scale.current.timeAt(Math.max(a.x, b.x))];
    if (high) [bounds.least, bounds.most] = [scale.current.durationAt(Math.max(a.y, b.y)), scale.current.durationAt(Math.min(a.y, b.y))];
    brushed(bounds);
  };
  const cancel = (event) => {
    if (event.key !== "Escape" || !drag) return;
    event.stopPropagation();
    setDrag(null);
  };
  const sorted = spans.map((span) => Number(span.duration)).sort((a, b) => a - b);
  const errors = spans.filter((span) => span.status === "error").length;
  const rect = drag && scale.current && boxOf(drag, scale.current);
  return html`<figure class="t-histogram" onKeyDown=${cancel}>
    <div
      class="t-plot"
      ref=${box}
      onPointerDown=${begin}
      onPointerMove=${move}
      onPointerUp=${end}
      onPointerCancel=${() => setDrag(null)}
      onPointerLeave=${() => setNear(null)}
    >
      <canvas ref=${canvas} role="img" aria-label=${`Durations of ${count(spans.length, "span")} over time`}></canvas>
      ${rect && html`<div class="t-brush" style=${rect}></div>`}
      ${near && html`<${Near} point=${near} width=${width} />`}
    </div>
    <figcaption>
      ${spans.length
        ? html`<span>${count(spans.length, "span")}${complete ? "" : ", the newest of more"}</span>
            <span>p50 <b>${duration(share(sorted, 0.5))}</b></span>
            <span>p95 <b>${duration(share(sorted, 0.95))}</b></span>
            <span>longest <b>${duration(sorted[sorted.length - 1])}</b></span>
            ${errors > 0 && html`<span class="t-bad">${count(errors, "error")}</span>`}`
        : html`<span>No span to draw</span>`}
      <span class="t-hint">Drag to narrow, click a point to open its trace</span>
    </figcaption>
  </figure>`;
}

function boxOf({ from, to }, { inner }) {
  const beside = from.rawX > EDGE.left + inner.w + 4;
  const flat = Math.abs(from.y - to.y) <= 7;
  const narrow = beside || Math.abs(from.x - to.x) <= 7;
  const x = narrow ? EDGE.left : Math.min(from.x, to.x);
  const y = flat ? EDGE.top : Math.min(from.y, to.y);
  return {
    left: `${x}px`,
    top: `${y}px`,
    width: `${narrow ? inner.w : Math.abs(from.x - to.x)}px`,
    height: `${flat ? inner.h : Math.abs(from.y - to.y)}px`,
    opacity: flat && narrow ? 0 : 1,
  };
}

function Near({ point, width }) {
  const { span } = point;
  const left = Math.min(point.x + 12, width - 230);
  return html`<div class="t-near" style=${{ left: `${Math.max(4, left)}px`, top: `${Math.min(point.y + 10, HEIGHT - 62)}px` }}>
    <b>${cut(span.name)}</b> ${duration(Number(span.duration))}<br />
    <span class="t-muted">${cut(span.service)} · ${clock(BigInt(span.start))}${span.status === "error" ? " · error" : ""}</span>
  </div>`;
}
