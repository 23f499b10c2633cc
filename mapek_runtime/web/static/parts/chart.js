// Percentiles over time, drawn by uPlot in the colours of the page.

import { ms } from "../format.js";
import { html, useEffect, useRef } from "../lib/htm/preact.js";

export const HEIGHT = 150;

let loading = null;

/** uPlot is a classic script; it is fetched when the first chart is drawn. */
function uplot() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/static/lib/uplot/uplot.js";
    script.onload = () => resolve(window.uPlot);
    script.onerror = () => {
      loading = null;
      reject(new Error("uPlot could not be loaded"));
    };
    document.head.append(script);
  });
  return loading;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function worded(at, far) {
  if (far) return at.toLocaleDateString([], { month: "short", day: "numeric" });
  return at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

function options(width, tone, from, to) {
  const far = to - from > 100_000;
  const when = (_plot, moments) => moments.map((moment) => worded(new Date(moment * 1000), far));
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const lines = [
    ["p50", [], 2.2],
    ["p95", [6, 3], 1.6],
    ["p99", [2, 3], 1.4],
  ];
  return {
    width,
    height: HEIGHT,
    cursor: { y: false, points: { size: 6 }, sync: { key: "phases" }, drag: { x: false, y: false } },
    legend: { show: false },
    padding: [8, 8, 0, 0],
    scales: { x: { time: true, range: () => [from, to] }, y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [
      { ...axis, size: 26, space: 56, values: when },
      { ...axis, size: 58, space: 32, values: (_plot, values) => values.map((value) => (value === 0 ? "0" : ms(value).replace(/\.0+ /, " "))) },
    ],
    series: [
      {},
      ...lines.map(([label, dash, weight]) => ({
        label,
        dash,
        width: weight,
        stroke: colour(tone),
        points: { show: true, size: label === "p50" ? 6 : 4, fill: label === "p50" ? colour(tone) : colour("card") },
        spanGaps: false,
      })),
    ],
  };
}

/** `points`: [{start, p50, p95, p99}] in milliseconds and seconds since 1970; `show(index | null)` hears where the pointer is. */
export default function Chart({ points, tone, from, to, label, show, failed }) {
  const box = useRef(null);
  useEffect(() => {
    let plot = null;
    let gone = false;
    let library = null;
    const draw = () => {
      if (gone || !library || !box.current) return;
      plot?.destroy();
      const width = Math.floor(box.current.clientWidth);
      if (!width) return;
      const data = [points.map((p) => p.start), points.map((p) => p.p50), points.map((p) => p.p95), points.map((p) => p.p99)];
      const chosen = options(width, tone, from, to);
      chosen.hooks = { setCursor: [(one) => show?.(one.cursor.idx ?? null)] };
      plot = new library(chosen, data, box.current);
    };
    const observer = new ResizeObserver(() => plot && plot.setSize({ width: Math.floor(box.current.clientWidth), height: HEIGHT }));
    uplot()
      .then((given) => {
        library = given;
        draw();
        if (!gone) observer.observe(box.current);
      })
      .catch((error) => failed?.(error));
    window.addEventListener("mapek-theme", draw);
    return () => {
      gone = true;
      observer.disconnect();
      window.removeEventListener("mapek-theme", draw);
      plot?.destroy();
    };
  }, [points, tone, from, to]);
  return html`<div class="chart" ref=${box} role="img" aria-label=${label}></div>`;
}
