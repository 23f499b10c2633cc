// A trace: what it was, why it decided so, and every span of it over time.

import { html, useCallback, useEffect, useMemo, useRef, useState } from "../lib/htm/preact.js";
import { count } from "../parts/amounts.js";
import { Details } from "../parts/details.js";
import { PhaseBar } from "../parts/phase_bar.js";
import { storyOf } from "../parts/story.js";
import { TraceHeader } from "../parts/trace_header.js";
import { criticalPath, matching, treeOf, visible } from "../parts/tree.js";
import { Waterfall } from "../parts/waterfall.js";
import { useNeighbours, useRest, useTrace } from "../parts/whole_trace.js";
import { Why } from "../parts/why.js";

const NONE = new Set();
const KEYS = [
  ["↑ ↓", "move"],
  ["← →", "close, open"],
  ["Enter", "details"],
  ["/", "find"],
  ["n N", "next, previous"],
  ["e", "next error"],
  ["+ − 0", "closer, wider, whole"],
  ["[ ]", "cycle before, after"],
];

function Missing({ id, got, again }) {
  const unknown = got.error?.status === 404;
  return html`<section class="t-empty" role="alert">
    <h1>${unknown ? "No such trace is stored" : "The trace cannot be shown"}</h1>
    <p>${got.error.message}</p>
    ${unknown &&
    html`<p class="t-muted">
      It was looked for several times: a trace appears some seconds after its last span has ended. It may also have been deleted, because the
      store keeps traces for a time and up to a size, or it was never sampled.
    </p>`}
    <p><button type="button" onClick=${again}>Look again</button> <a href=${`#/search`}>Search for others</a></p>
    <p class="t-muted">Trace <code class="t-id">${id}</code></p>
  </section>`;
}

function Find({ text, setText, hits, step, field }) {
  const pressed = (event) => {
    if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") (setText(""), event.target.blur());
    else return;
    event.preventDefault();
  };
  return html`<span class="t-find">
    <input
      ref=${field}
      type="search"
      aria-label="Find in this trace"
      placeholder="Find in this trace ( / )"
      value=${text}
      onInput=${(event) => setText(event.target.value)}
      onKeyDown=${pressed}
    />
    <span class="t-find-count" role="status">${text.trim() ? `${hits.length.toLocaleString("en")} found` : ""}</span>
    ${hits.length > 0 &&
    html`<button type="button" aria-label="Previous" title="Previous (Shift+Enter, N)" onClick=${() => step(-1)}>↑</button
      ><button type="button" aria-label="Next" title="Next (Enter, n)" onClick=${() => step(1)}>↓</button>`}
  </span>`;
}

function Shown({ id, got, again, api, state, note, wanted }) {
  const tree = useMemo(() => treeOf(got.spans), [got.spans]);
  const path = useMemo(() => criticalPath(tree), [tree]);
  const story = useMemo(() => storyOf(got.spans), [got.spans]);
  const services = useMemo(() => [...new Set(got.spans.map((span) => span.service))].sort(), [got.spans]);
  const neighbours = useNeighbours(api, id, story);
  useRest(again, tree, got.done, state?.stored?.last);
  const [collapsed, setCollapsed] = useState(NONE);
  const [chosen, setChosen] = useState(wanted);
  const [opened, setOpened] = useState(Boolean(wanted));
  const [shown, show] = useState(null);
  const [text, setText] = useState("");
  const box = useRef(null);
  const field = useRef(null);
  const lower = useRef(null);
  const rows = useMemo(() => visible(tree, collapsed), [tree, collapsed]);
  const hits = useMemo(() => matching(tree, text), [tree, text]);
  const hitIds = useMemo(() => new Set(hits.map((node) => node.span.span_id)), [hits]);
  const node = chosen === null ? null : (tree.byId.get(chosen) ?? null);

  const toggle = useCallback((one) => {
    setCollapsed((was) => {
      const next = new Set(was);
      if (!next.delete(one.span.span_id)) next.add(one.span.span_id);
      return next;
    });
  }, []);
  /** Choose a span wherever it is, opening what hides it. */
  const goTo = (span) => {
    const target = tree.byId.get(span);
    if (!target) return;
    const closed = [];
    for (let up = target.parent; up; up = up.parent) if (collapsed.has(up.span.span_id)) closed.push(up.span.span_id);
    if (closed.length) setCollapsed((was) => new Set([...was].filter((one) => !closed.includes(one))));
    setChosen(span);
    setOpened(true);
  };
  const fromStory = (span) => {
    goTo(span);
    lower.current?.scrollIntoView({ block: "nearest" });
  };
  useEffect(() => {
    if (wanted) goTo(wanted);
  }, [wanted]);
  const choose = useCallback((one) => (setChosen(one.span.span_id), setOpened(true)), []);
  const jump = (list, direction) => {
    if (!list.length) return;
    const at = node ? node.index : direction > 0 ? -1 : tree.nodes.length;
    const next = direction > 0 ? list.find((one) => one.index > at) : list.findLast((one) => one.index < at);
    goTo((next ?? list[direction > 0 ? 0 : list.length - 1]).span.span_id);
  };
  const step = (direction) => jump(hits, direction);
  const errors = useMemo(() => tree.nodes.filter((one) => one.span.status === "error"), [tree]);
  const zoom = (factor) => {
    const [from, to] = shown ?? [0, tree.duration];
    const middle = node && node.start >= from && node.end <= to ? (node.start + node.end) / 2 : (from + to) / 2;
    const half = Math.min(tree.duration, Math.max(100, (to - from) * factor)) / 2;
    const left = Math.max(0, Math.min(middle - half, tree.duration - 2 * half));
    show(half * 2 >= tree.duration ? null : [left, left + 2 * half]);
  };

  useEffect(() => {
    if (!opened || chosen === null || !matchMedia("(max-width: 1079px)").matches) return;
    // The details come as a sheet over the page: the row that they are about stays above it.
    requestAnimationFrame(() => document.getElementById(`t-span-${chosen}`)?.scrollIntoView({ block: "nearest" }));
  }, [opened, chosen]);

  const keys = (event, page) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = node ? rows.indexOf(node) : -1;
    const to = (i) => setChosen(rows[Math.max(0, Math.min(rows.length - 1, i))].span.span_id);
    const folded = node && collapsed.has(chosen);
    const up = node?.parent && node.parent.span.span_id;
    const actions = {
      ArrowDown: () => to(at + 1),
      j: () => to(at + 1),
      ArrowUp: () => to(at < 0 ? 0 : at - 1),
      k: () => to(at < 0 ? 0 : at - 1),
      PageDown: () => to(at + page),
      PageUp: () => to(at - page),
      Home: () => to(0),
      End: () => to(rows.length - 1),
      ArrowLeft: () => node && (node.children.length && !folded ? toggle(node) : up && setChosen(up)),
      ArrowRight: () => node?.children.length && (folded ? toggle(node) : to(at + 1)),
      Enter: () => node && (setOpened(true), requestAnimationFrame(() => box.current?.focus({ preventScroll: true }))),
      Escape: () => (opened ? setOpened(false) : shown ? show(null) : setChosen(null)),
      "+": () => zoom(0.5),
      "-": () => zoom(2),
      0: () => show(null),
    };
    if (!Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    actions[event.key]();
  };
  const latest = useRef(null);
  latest.current = { step, neighbours, errors, jump };
  useEffect(() => {
    const pressed = (event) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.closest?.("input, select, textarea, dialog")) return;
      const now = latest.current;
      const actions = {
        "/": () => field.current?.focus(),
        n: () => now.step(1),
        N: () => now.step(-1),
        e: () => now.jump(now.errors, 1),
        "[": () => now.neighbours.before && (location.hash = `#/trace/${now.neighbours.before.trace}`),
        "]": () => now.neighbours.after && (location.hash = `#/trace/${now.neighbours.after.trace}`),
      };
      if (!Object.hasOwn(actions, event.key)) return;
      event.preventDefault();
      actions[event.key]();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);

  const close = () => {
    setOpened(false);
    lower.current?.querySelector("[role=treegrid]")?.focus({ preventScroll: true });
  };
  const foldable = tree.nodes.some((one) => one.children.length && one.parent);
  return html`<article class="t-trace">
    <${TraceHeader} id=${id} tree=${tree} story=${story} neighbours=${neighbours} api=${api} state=${state} note=${note} services=${services} />
    ${story && html`<${PhaseBar} story=${story} goTo=${fromStory} />`}
    ${story && html`<${Why} story=${story} goTo=${fromStory} />`}
    <section class="t-lower" ref=${lower} aria-labelledby="t-spans-title">
      <div class="t-tools">
        <h2 id="t-spans-title">Spans</h2>
        <${Find} text=${text} setText=${setText} hits=${hits} step=${step} field=${field} />
        ${errors.length > 0 && html`<button type="button" class="t-error-step" title="Next error (e)" onClick=${() => jump(errors, 1)}>${count(errors.length, "error")} ↓</button>`}
        ${foldable &&
        html`<button type="button" onClick=${() => setCollapsed(collapsed.size ? NONE : new Set(tree.nodes.filter((one) => one.children.length && one.parent).map((one) => one.span.span_id)))}>
          ${collapsed.size ? "Open all" : "Close all"}
        </button>`}
        ${shown && html`<button type="button" title="Key 0" onClick=${() => show(null)}>Whole time</button>`}
        ${!got.done && html`<span class="t-muted t-loading" role="status">${got.spans.length.toLocaleString("en")} of ${count(got.total, "span")}…</span>`}
        ${got.done && got.error && html`<span class="t-warn" role="status">The rest could not be loaded: ${got.error.message}</span>`}
        <span class="t-legend"><i class="t-critical"></i> critical path <i class="t-event"></i> event</span>
      </div>
      <div class=${opened && node ? "t-split t-split-open" : "t-split"}>
        <${Waterfall}
          tree=${tree}
          rows=${rows}
          path=${path}
          collapsed=${collapsed}
          chosen=${chosen}
          hits=${hitIds}
          choose=${choose}
          toggle=${toggle}
          shown=${shown}
          show=${show}
          keys=${keys}
        />
        ${opened && node && html`<${Details} key=${chosen} node=${node} tree=${tree} close=${close} goTo=${goTo} box=${box} />`}
      </div>
      <p class="t-keys" aria-label="Keys">${KEYS.map(([key, what]) => html`<span key=${key}><kbd>${key}</kbd> ${what}</span>`)}</p>
    </section>
  </article>`;
}

export default function Trace({ route, state, api, note }) {
  const id = route.id;
  const [got, again] = useTrace(api, id);
  if (!got.spans.length) {
    if (got.done && got.error) return html`<${Missing} id=${id} got=${got} again=${again} />`;
    return html`<section class="t-empty" role="status">
      <h1>${got.tries ? "Not stored yet" : "Loading the trace"}</h1>
      ${got.tries && html`<p>Its last spans may still be under way: looking again, ${got.tries} of 8.</p>`}
      <p class="t-muted">Trace <code class="t-id">${id}</code></p>
    </section>`;
  }
  return html`<${Shown} key=${id} id=${id} got=${got} again=${again} api=${api} state=${state} note=${note} wanted=${route.params.get("span")} />`;
}
