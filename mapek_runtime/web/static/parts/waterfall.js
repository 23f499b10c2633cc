// The waterfall: a row for each span, drawn over time. Only the rows that can be seen exist, so that a
// hundred thousand spans scroll as ten do.

import { cut } from "../format.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib/htm/preact.js";
import { duration, steps } from "./amounts.js";
import { laneOf } from "./lanes.js";
import { Minimap } from "./minimap.js";

const ROW = 26;
const AXIS = 26;
const OVER = 6; // Rows drawn above and below what is seen.
const INDENT = 14;
const DEEPEST = 16; // Levels that are indented; the number of the level is said to who does not see it.
const TICKS = 40; // Events drawn on one bar.
const LONG = 40; // Spans from which the minimap is of use.

function Bar({ node, tree, path, from, to, closer }) {
  const length = Math.max(1, to - from);
  const percent = (ns) => ((ns - from) / length) * 100;
  const left = Math.max(-1, percent(node.start));
  const right = Math.min(100, percent(node.end));
  if (right < 0 || left > 100) {
    return html`<span class=${right < 0 ? "t-off t-off-left" : "t-off"} aria-hidden="true">${right < 0 ? "‹" : "›"}</span>`;
  }
  const own = path.get(node.span.span_id) ?? [];
  const after = right < 86;
  const events = (node.span.events ?? []).slice(0, TICKS);
  return html`<span class=${closer} style=${{ left: `${left}%`, width: `${Math.max(0, right - left)}%` }}></span>
    ${own.map(([a, b]) => {
      const start = Math.max(0, percent(a));
      const end = Math.min(100, percent(b));
      return end > start && html`<i class="t-critical" key=${a} style=${{ left: `${start}%`, width: `${end - start}%` }}></i>`;
    })}
    ${events.map((event, i) => {
      const where = percent(Number(BigInt(event.time) - tree.start));
      return where >= 0 && where <= 100 && html`<i class="t-event" key=${i} title=${cut(event.name)} style=${{ left: `${where}%` }}></i>`;
    })}
    <span
      class=${after ? "t-took" : left > 22 ? "t-took t-took-before" : "t-took t-took-inside"}
      style=${after ? { left: `${right}%` } : left > 22 ? { right: `${100 - left}%` } : { right: `${100 - right}%` }}
      >${duration(node.end - node.start)}</span
    >`;
}

function Row({ node, tree, path, at, from, to, closed, chosen, hit, choose, toggle }) {
  const { span } = node;
  const error = span.status === "error";
  const lane = laneOf(tree, node).name;
  const parent = node.children.length > 0;
  const told = [
    `${cut(span.name)}, ${duration(node.end - node.start)}, level ${node.depth + 1}`,
    error ? "error" : "",
    path.has(span.span_id) ? "on the critical path" : "",
  ];
  return html`<div
    class=${`t-row ${lane}${chosen ? " t-chosen-row" : ""}${hit ? " t-found-row" : ""}${error ? " t-error-row" : ""}`}
    id=${`t-span-${span.span_id}`}
    role="row"
    aria-rowindex=${at + 1}
    aria-level=${node.depth + 1}
    aria-expanded=${parent ? (closed ? "false" : "true") : null}
    aria-selected=${chosen ? "true" : "false"}
    aria-label=${told.filter(Boolean).join(", ")}
    style=${{ top: `${at * ROW}px` }}
    onClick=${() => choose(node)}
    onDblClick=${() => parent && toggle(node)}
  >
    <div class="t-name" role="gridcell" style=${{ paddingLeft: `${6 + Math.min(node.depth, DEEPEST) * INDENT}px` }}>
      ${parent
        ? html`<button
            type="button"
            class="t-fold"
            tabindex="-1"
            aria-label=${closed ? "Open" : "Close"}
            onClick=${(event) => (event.stopPropagation(), toggle(node))}
          >${closed ? "▸" : "▾"}</button>`
        : html`<i class="t-leaf"></i>`}
      ${error && html`<b class="t-wrong-mark" title=${cut(span.status_message || "error")}>!</b>`}
      <span class="t-label" title=${`${cut(span.name)} · ${cut(span.service)}`}>${cut(span.name)}</span>
      ${closed && html`<span class="t-inside" title="spans inside">+${(node.size - 1).toLocaleString("en")}</span>`}
      ${span.attributes?.skipped === true && html`<span class="t-skipped">skipped</span>`}
      ${node.orphan && html`<span class="t-skipped" title="The span it belongs to is not stored">no parent</span>`}
    </div>
    <div class="t-time" role="gridcell">
      <${Bar} node=${node} tree=${tree} path=${path} from=${from} to=${to} closer="t-bar" />
    </div>
  </div>`;
}

export function Waterfall({ tree, rows, path, collapsed, chosen, hits, choose, toggle, shown, show, keys, room }) {
  const scroll = useRef(null);
  const [seen, setSeen] = useState({ top: 0, height: 600 });
  const frame = useRef(0);
  useLayoutEffect(() => {
    const look = () => setSeen({ top: scroll.current.scrollTop, height: scroll.current.clientHeight });
    const watch = new ResizeObserver(look);
    watch.observe(scroll.current);
    look();
    return () => (watch.disconnect(), cancelAnimationFrame(frame.current));
  }, []);
  const scrolled = () => {
    // One picture for however many events of the wheel.
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(
      () => scroll.current && setSeen({ top: scroll.current.scrollTop, height: scroll.current.clientHeight }),
    );
  };
  const index = useMemo(() => {
    const where = new Map();
    rows.forEach((node, i) => where.set(node.span.span_id, i));
    return where;
  }, [rows]);
  const chosenAt = chosen === null ? -1 : (index.get(chosen) ?? -1);
  useEffect(() => {
    if (chosenAt < 0) return;
    const box = scroll.current;
    const top = chosenAt * ROW;
    const room = box.clientHeight - AXIS;
    if (top < box.scrollTop) box.scrollTop = Math.max(0, top - ROW);
    else if (top + ROW > box.scrollTop + room) box.scrollTop = top + 2 * ROW - room;
  }, [chosen, rows]);

  const first = Math.max(0, Math.floor(seen.top / ROW) - OVER);
  const last = Math.min(rows.length, Math.ceil((seen.top + seen.height) / ROW) + OVER);
  const [from, to] = shown ?? [0, Math.max(1, tree.duration)];
  const wide = seen.height > 0 && window.innerWidth > 700;
  const marks = steps(from, to, wide ? 6 : 3).filter((at) => at >= from && at <= to);
  const place = (at) => `${((at - from) / Math.max(1, to - from)) * 100}%`;
  const inView = chosenAt >= first && chosenAt < last;
  return html`<div class="t-waterfall">
    ${tree.nodes.length >= LONG && html`<div class="t-map"><${Minimap} tree=${tree} shown=${shown} show=${show} /></div>`}
    <div
      class="t-rows"
      ref=${scroll}
      role="treegrid"
      tabindex="0"
      aria-label="Spans of the trace"
      aria-rowcount=${rows.length}
      aria-activedescendant=${inView ? `t-span-${chosen}` : null}
      style=${{ height: `${rows.length * ROW + AXIS + 2}px`, maxHeight: room }}
      onScroll=${scrolled}
      onKeyDown=${(event) => keys(event, Math.max(1, Math.floor((seen.height - AXIS) / ROW) - 1))}
    >
      <div class="t-axis" aria-hidden="true">
        <div class="t-axis-name">Span</div>
        <div class="t-axis-time">
          ${marks.map((at, i) => {
            const edge = (at - from) / Math.max(1, to - from) > 0.93;
            return html`<span key=${at} class=${edge ? "t-mark t-mark-last" : i === 0 && at === from ? "t-mark t-mark-first" : "t-mark"} style=${{ left: place(at) }}
              >${at === 0 ? "0" : duration(at)}</span
            >`;
          })}
        </div>
      </div>
      <div class="t-spacer" style=${{ height: `${rows.length * ROW}px` }}>
        <div class="t-grid" aria-hidden="true"><div>${marks.map((at) => html`<i key=${at} style=${{ left: place(at) }}></i>`)}</div></div>
        ${rows.slice(first, last).map(
          (node, i) => html`<${Row}
            key=${node.span.span_id}
            node=${node}
            tree=${tree}
            path=${path}
            at=${first + i}
            from=${from}
            to=${to}
            closed=${collapsed.has(node.span.span_id)}
            chosen=${node.span.span_id === chosen}
            hit=${hits.has(node.span.span_id)}
            choose=${choose}
            toggle=${toggle}
          />`,
        )}
      </div>
    </div>
  </div>`;
}
