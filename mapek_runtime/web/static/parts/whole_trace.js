// A trace, page by page; and the cycles before and after it.

import { useEffect, useRef, useState } from "../lib/htm/preact.js";

const FIRST = 2_000; // Spans of the first page, which is to be seen soon.
const PAGE = 10_000;
const TRIES = 8;
const LONGEST_NAME = 200;
const LOOK = 100; // Spans of a linked trace among which its root is looked for.
const PAUSE = 1_000; // Milliseconds between two tries for a trace that is not stored yet.
const LATE = 30_000; // Milliseconds after which a parent that is missing will not come any more.
const NEXT = [0, 1_500, 4_000]; // The cycle after this one may not have ended: when it is looked for.
const SOON = 600_000_000_000n; // The cycle after is looked for in these nanoseconds after the start.

/** Waits; rejects when `signal` says so. */
const pause = (milliseconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });

/** The spans of the trace `id` as they come: `{spans, total, error, tries, done}`. */
export function useTrace(api, id) {
  const [got, setGot] = useState({ id, spans: [], total: null });
  const [turn, setTurn] = useState(null); // The trace that is loaded anew.
  const [loads, setLoads] = useState(0);
  useEffect(() => {
    const control = new AbortController();
    const { signal } = control;
    const set = (value) => signal.aborted || setGot({ id, ...value });
    const load = async () => {
      const spans = [];
      const seen = new Set();
      const senders = new Map();
      let total = null;
      let asked = 0;
      // What is drawn stays until there is more to draw.
      setGot((was) => (was.id === id && was.spans.length ? was : { id, spans: [], total: null }));
      for (let tries = 0; total === null || asked < total; ) {
        try {
          const limit = asked ? PAGE : FIRST;
          const page = await api.get(`/page/trace/${encodeURIComponent(id)}?offset=${asked}&limit=${limit}`, { signal });
          total = page.total;
          // Spans that came in between two pages may move others: each is taken once.
          for (const span of page.spans) {
            if (seen.has(span.span_id)) continue;
            seen.add(span.span_id);
            // A hundred thousand spans have a few resources between them.
            const key = JSON.stringify(span.resource);
            if (!senders.has(key)) senders.set(key, span.resource);
            span.resource = senders.get(key);
            spans.push(span);
          }
          asked += page.spans.length;
          if (!page.spans.length) break;
          if (turn !== id) set({ spans: [...spans], total });
        } catch (error) {
          if (signal.aborted) return;
          if (error.status !== 404 || asked || ++tries >= TRIES) return set({ spans: [...spans], total, error, done: true });
          set({ spans: [], total: null, tries });
          await pause(PAUSE, signal).catch(() => {});
          if (signal.aborted) return;
        }
      }
      set({ spans, total, done: true });
    };
    load();
    return () => control.abort();
  }, [id, turn, loads]);
  // What is drawn is of the trace that is asked for, also in the moment of change.
  return [got.id === id ? got : { id, spans: [], total: null }, () => (setTurn(id), setLoads((n) => n + 1))];
}

/** Loads the trace again while a parent is missing that may still come: `last` changes when spans are stored. */
export function useRest(again, tree, done, last) {
  const tried = useRef(0);
  const missing = done && tree.nodes.some((node) => node.orphan);
  useEffect(() => {
    const ended = Number(tree.start / 1_000_000n) + tree.duration / 1e6;
    if (!missing || last === undefined || tried.current >= TRIES || Date.now() - ended > LATE) return;
    const timer = setTimeout(() => ((tried.current += 1), again()), PAUSE);
    return () => clearTimeout(timer);
  }, [missing, last !== undefined, tree]);
}

const quoted = (text) => `"${String(text).replace(/[\\"]/g, "\\$&")}"`;

/** The cycles before and after the one of `story`, and what else started it: `{before, after, starters}`. */
export function useNeighbours(api, id, story) {
  const [found, setFound] = useState({});
  const root = story?.root;
  const known = useRef(null);
  known.current = id;
  useEffect(() => {
    setFound({});
    if (!root) return;
    const control = new AbortController();
    const { signal } = control;
    const tell = (part) => signal.aborted || setFound((was) => ({ ...was, ...part }));
    const before = async () => {
      const links = (root.links ?? []).slice(0, 4);
      const told = await Promise.all(
        links.map(async (link) => {
          const page = await api.get(`/page/trace/${link.trace_id}?limit=${LOOK}`, { signal }).catch(() => null);
          return { link, span: page?.spans.find((span) => span.span_id === link.span_id) ?? page?.spans.find((span) => !span.parent_id) };
        }),
      );
      const cycle = ({ span }) => span?.name === "mape_k.cycle" && span.attributes?.node_id === story.node;
      const last = told.find(cycle);
      tell({
        before: last && { trace: last.link.trace_id, cycle: last.span.attributes.cycle },
        starters: told.filter((one) => one !== last).map(({ link, span }) => ({ trace: link.trace_id, span: link.span_id, name: span?.name })),
      });
    };
    const after = async () => {
      // Of an address as long as that nobody would take.
      if (story.node.length > LONGEST_NAME) return tell({ after: null });
      const start = BigInt(root.start);
      const query = `{ name = "mape_k.cycle" && span.node_id = ${quoted(story.node)} && link:traceID = "${id}" }`;
      const params = new URLSearchParams({ q: query, limit: "5", start: String(start), end: String(start + SOON) });
      for (const wait of NEXT) {
        await pause(wait, signal);
        const told = await api.get(`/page/search?${params}`, { signal });
        const next = told.traces.filter((trace) => trace.trace_id !== id).sort((a, b) => (BigInt(a.start) < BigInt(b.start) ? -1 : 1))[0];
        if (next) return tell({ after: { trace: next.trace_id, cycle: next.sets[0]?.spans[0]?.attributes?.cycle } });
      }
      return tell({ after: null });
    };
    // A neighbour that cannot be found is only not offered.
    before().catch(() => {});
    after().catch(() => {});
    return () => control.abort();
  }, [id, root?.span_id]);
  return found;
}
