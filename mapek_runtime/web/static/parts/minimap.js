// The whole trace in little: every span a line, and the part of the time that is shown. Dragging chooses one.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/htm/preact.js";
import { duration } from "./amounts.js";
import { laneOf } from "./lanes.js";

const HEIGHT = 56;

export function Minimap({ tree, shown, show }) {
  const box = useRef(null);
  const canvas = useRef(null);
  const [width, setWidth] = useState(0);
  const [turn, redraw] = useState(0);
  const [drag, setDrag] = useState(null);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(() => setWidth(Math.floor(box.current.clientWidth)));
    watch.observe(box.current);
    const repaint = () => redraw((n) => n + 1);
    window.addEventListener("mapek-theme", repaint);
    return () => (watch.disconnect(), window.removeEventListener("mapek-theme", repaint));
  }, []);
  useEffect(() => {
    if (!width) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.current.width = Math.round(width * ratio);
    canvas.current.height = Math.round(HEIGHT * ratio);
    const pen = canvas.current.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(canvas.current);
    const colours = new Map();
    const colour = (name) => {
      if (!colours.has(name)) colours.set(name, style.getPropertyValue(name).trim());
      return colours.get(name);
    };
    const total = Math.max(1, tree.duration);
    const high = Math.max(1, Math.min(4, (HEIGHT - 4) / tree.nodes.length));
    const paint = (node) => {
      const y = 2 + (node.index / tree.nodes.length) * (HEIGHT - 4 - high);
      pen.fillRect((node.start / total) * width, y, Math.max(1, ((node.end - node.start) / total) * width), high);
    };
    pen.globalAlpha = tree.nodes.length > 2000 ? 0.5 : 0.85;
    for (const node of tree.nodes) {
      pen.fillStyle = colour(laneOf(tree, node).variable);
      paint(node);
    }
    // Over all others, or among many thousands no error would be seen.
    pen.globalAlpha = 1;
    pen.fillStyle = colour("--bad");
    for (const node of tree.nodes) if (node.span.status === "error") paint(node);
  }, [tree, width, turn]);

  const at = (event) => {
    const edge = box.current.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - edge.left) / edge.width)) * tree.duration;
  };
  const begin = (event) => {
    if (event.button !== 0) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    setDrag([at(event), at(event)]);
  };
  const end = (event) => {
    if (!drag) return;
    const [a, b] = [drag[0], at(event)].sort((x, y) => x - y);
    setDrag(null);
    show(b - a > tree.duration * 0.003 ? [a, b] : null);
  };
  const window_ = drag ? [...drag].sort((x, y) => x - y) : shown;
  const percent = (ns) => `${(ns / Math.max(1, tree.duration)) * 100}%`;
  return html`<div
    class="t-minimap"
    ref=${box}
    title="Drag to look closer, click for the whole"
    onPointerDown=${begin}
    onPointerMove=${(event) => drag && setDrag([drag[0], at(event)])}
    onPointerUp=${end}
    onPointerCancel=${() => setDrag(null)}
  >
    <canvas ref=${canvas} role="img" aria-label=${`The whole trace, ${duration(tree.duration)}`}></canvas>
    ${window_ &&
    html`<div class="t-shade" style=${{ left: 0, width: percent(window_[0]) }}></div>
      <div class="t-shade" style=${{ left: percent(window_[1]), right: 0 }}></div>
      <div class="t-window" style=${{ left: percent(window_[0]), width: percent(window_[1] - window_[0]) }}></div>`}
  </div>`;
}
