// A course without axes: what it was in the last minutes.

import { html } from "../lib/htm/preact.js";

const WIDTH = 240;
const HEIGHT = 40;
const FEWEST = 60;
const MOST = 179;

export default function Sparkline({ values, label }) {
  const top = Math.max(...values, 1e-9);
  // A short course fills a third of the room, and then moves on: one that began just now is to be seen too.
  const step = WIDTH / Math.min(MOST, Math.max(FEWEST, values.length - 1));
  const x = (n) => WIDTH - (values.length - 1 - n) * step;
  const y = (value) => HEIGHT - 2 - (value / top) * (HEIGHT - 6);
  const line = values.map((value, n) => `${n ? "L" : "M"}${x(n).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  return html`<svg class="spark" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${label}>
    ${values.length > 1 && html`<path class="area" d=${`${line}L${WIDTH} ${HEIGHT}L${x(0).toFixed(1)} ${HEIGHT}Z`} /><path class="course" d=${line} />`}
  </svg>`;
}
