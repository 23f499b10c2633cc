// The loop now: a strip of cycles for each node, the cycle that is looked at, and what happened.

import { count, ms, names, percent, span } from "../format.js";
import { html, useCallback, useEffect, useMemo, useRef, useState } from "../lib/htm/preact.js";
import { cyclesOf } from "../live.js";
import Happened from "../parts/happened.js";
import Inspector from "../parts/inspector.js";
import Strip, { CELL } from "../parts/strip.js";

const MOST = 60;
const FEWEST = 12;
const PHASES = ["monitor", "analyze", "plan", "execute", "knowledge"];

function Figure({ label, value, title, tone }) {
  return html`<div class=${names("figure", tone)} title=${title}><dt>${label}</dt><dd>${value}</dd></div>`;
}

function Figures({ state }) {
  const report = state.report ?? null;
  const seconds = Math.max(1, (Date.now() + state.skew) / 1000 - Number(BigInt(state.started) / 1_000_000n) / 1000);
  const failed = state.nodes.reduce((sum, node) => sum + node.failed, 0);
  const faults = report && report.injected > 0;
  return html`<dl class="figures">
    <${Figure} label="Cycles" value=${count(cyclesOf(state))} title=${`in ${span(seconds)}; ${count(failed)} failed`} />
    <${Figure} label="Faults injected" value=${report ? count(report.injected) : "–"} title="by chaos and from this page" />
    <${Figure} label="Healed" value=${report ? count(report.healed) : "–"} tone=${faults && report.healed > 0 ? "ok" : ""} title="faults after which every path was well again while they lasted" />
    <${Figure} label="Time to repair" value=${report?.repair_ms ? ms(report.repair_ms.median) : "–"} title=${report?.repair_ms ? `median; p95 ${ms(report.repair_ms.p95)}` : "median, once a fault was healed"} />
    <${Figure} label="Delivered" value=${report?.sent ? percent(report.delivered / report.sent, 2) : "–"} title=${report ? `${count(report.delivered)} of ${count(report.sent)} messages` : ""} />
    <${Figure} label="Wrong actions" value=${report ? count(report.wrong_actions) : "–"} tone=${report?.wrong_actions ? "bad" : ""} title="actions on what was well" />
  </dl>`;
}

function Legend() {
  return html`<div class="legend">
    <ul aria-label="The five phases, from top to bottom">
      ${PHASES.map((phase) => html`<li key=${phase}><i class=${`swatch ${phase}`}></i>${phase}</li>`)}
    </ul>
    <ul aria-label="Signs">
      <li><i class="swatch skipped"></i>skipped</li>
      <li><i class="swatch cap acted"></i>acted</li>
      <li><i class="swatch cap failed"></i>failed</li>
      <li class="muted"><i class="ramp" aria-hidden="true"></i>0.1 – 10 ms</li>
    </ul>
  </div>`;
}

/** How many cells a strip has room for. */
function useRoom() {
  const ref = useRef(null);
  const [room, setRoom] = useState(40);
  useEffect(() => {
    const measured = () => {
      const width = ref.current?.querySelector(".strip")?.clientWidth;
      if (width) setRoom(Math.max(FEWEST, Math.min(MOST, Math.floor((width + 2) / CELL))));
    };
    const observer = new ResizeObserver(measured);
    observer.observe(ref.current);
    measured();
    return () => observer.disconnect();
  }, []);
  return [ref, room];
}

function Empty({ state }) {
  return html`<section class="notice">
    <h2>No cycle yet</h2>
    <p>The loop of ${state.nodes.length ? `${state.nodes.length} nodes` : "this service"} has not gone round. ${state.halted != null ? "It is halted; resume it on the mesh view." : "Cycles appear here as soon as they end."}</p>
    ${!state.nodes.length && html`<p>A loop that has something to heal: <code>mapek run --nodes 5 --chaos</code>.</p>`}
  </section>`;
}

/**
 * While somebody points at a cell or walks among them, the strips stand still: what moves away ten times a second cannot be
 * clicked. What happens meanwhile is shown afterwards.
 */
export default function Loop({ state, paused }) {
  const [held, setHeld] = useState(null);
  const [chosen, setChosen] = useState(null);
  const [grid, room] = useRoom();
  const cycles = held ?? state.cycles;
  const nodes = useMemo(() => [...new Set([...state.nodes.map((node) => node.id), ...Object.keys(state.cycles)])].sort(byNumber), [state.nodes, state.cycles]);

  const newestCycles = useRef(state.cycles);
  newestCycles.current = state.cycles;
  const hold = () => setHeld((was) => was ?? newestCycles.current);
  const choose = useCallback((cycle) => (hold(), setChosen(cycle)), []);
  const leave = () => {
    setHeld(null);
    setChosen(null);
  };
  // Keys come faster than pictures: they go by what was chosen last, drawn or not.
  const now = useRef({});
  now.current = { nodes, cycles, room, chosen, choose, leave, grid: grid.current };
  useEffect(() => {
    const pressed = (event) => move(event, now.current);
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, []);

  const any = nodes.some((node) => cycles[node]?.length);
  const latest = newest(Object.values(state.latest));
  return html`<div class="view loop">
    <h1 class="hidden">The loop</h1>
    <${Figures} state=${state} />
    <section class="card strips" aria-label="Cycles of each node">
      <header class="head"><h2>Cycles <span class="muted">newest right</span></h2><${Legend} /></header>
      ${!any && html`<${Empty} state=${state} />`}
      <div
        class=${names("rows", held && "held")}
        ref=${grid}
        onPointerEnter=${(event) => event.pointerType === "mouse" && hold()}
        onPointerLeave=${(event) => event.pointerType === "mouse" && !grid.current.contains(document.activeElement) && leave()}
        onFocusOut=${(event) => !grid.current.contains(event.relatedTarget) && leave()}
      >
        ${nodes.map(
          (node) => html`<${Strip}
            key=${node}
            node=${state.nodes.find((one) => one.id === node) ?? { id: node, alive: true }}
            cycles=${cycles[node] ?? NONE}
            room=${room}
            latest=${state.latest[node]}
            chosen=${chosen?.node === node ? chosen.trace_id : ""}
            choose=${choose}
            now=${Date.now() + state.skew}
          />`,
        )}
      </div>
      <${Inspector} cycle=${chosen ?? latest} chosen=${chosen !== null} held=${held !== null && !paused} />
    </section>
    <${Happened} items=${state.happened} faults=${state.faults} missed=${state.missed} />
  </div>`;
}

const NONE = [];
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], j: [0, 1], k: [0, -1], ArrowDown: [0, 1], ArrowUp: [0, -1] };
const byNumber = (a, b) => a.localeCompare(b, "en", { numeric: true });
const newest = (cycles) => cycles.reduce((best, one) => (!best || BigInt(one.start) > BigInt(best.start) ? one : best), null);

/** j, k and the arrows; Enter is the link's own. */
function move(event, now) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select, dialog")) return;
  const { nodes, cycles, room, chosen, grid } = now;
  if (event.key === "Escape" && chosen) {
    document.activeElement?.blur?.();
    now.leave();
    return;
  }
  const step = STEPS[event.key];
  // The arrows scroll the page as ever, until somebody is among the cycles.
  if (!step || (event.key.startsWith("Arrow") && !grid.contains(document.activeElement))) return;
  const filled = nodes.filter((node) => cycles[node]?.length);
  if (!filled.length) return;
  event.preventDefault();
  const [dx, dy] = step;
  let row = dy < 0 ? filled.length - 1 : 0;
  let fromEnd = 0;
  if (chosen) {
    const old = cycles[chosen.node].slice(-room);
    row = within(filled.indexOf(chosen.node) + dy, filled.length);
    fromEnd = old.length - 1 - old.findIndex((cycle) => cycle.trace_id === chosen.trace_id) - dx;
  }
  const list = cycles[filled[row]].slice(-room);
  const next = list[within(list.length - 1 - fromEnd, list.length)];
  now.chosen = next;
  now.choose(next);
  // After the picture has changed: the cell may not have been there before.
  requestAnimationFrame(() => grid.querySelector(`[data-trace="${CSS.escape(next.trace_id)}"].chosen`)?.focus());
}

const within = (n, length) => Math.max(0, Math.min(length - 1, n));
