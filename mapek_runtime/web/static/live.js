// The state of the page: what /page/state told, and what happened since. Plain functions over values: a state is never
// changed in place, so that one that is paused stays as it was.

const KEPT = 120; // Cycles of a node.
const EVENTS = 200;
const SAMPLES = 180; // Health, one a second.
const BEFORE = 15_000_000_000n; // Nanoseconds around an event in which its traces are looked for.
const AFTER = 30_000_000_000n;

const notable = (cycle) => cycle.actions.length > 0 || !cycle.success;
/** A table by the names of nodes, which senders choose: `constructor` and `__proto__` are names like any other. */
const table = (more = {}) => Object.assign(Object.create(null), more);
const later = (a, b) => a.length > b.length || (a.length === b.length && a > b);

function happening(cycle) {
  return {
    id: cycle.trace_id,
    time: cycle.start,
    name: "cycle",
    node: cycle.node,
    number: cycle.cycle,
    trace: cycle.trace_id,
    targets: cycle.actions.map((action) => action.target),
    success: cycle.success,
    ...summary(cycle),
    line: cycle.line,
  };
}

/** What a cycle did and why, in a few words; its `line` says all of it. */
export function summary(cycle) {
  const failed = cycle.phases.find((phase) => phase.state === "failed");
  if (!cycle.actions.length) return { done: failed ? `${failed.phase} failed` : cycle.line, why: failed?.reason ?? "" };
  const done = cycle.actions.map((action) => `${action.action} ${action.target}${action.success === false ? " failed" : ""}`).join(", ");
  const targets = cycle.actions.map((action) => action.target);
  const found = cycle.findings.find((finding) => targets.includes(finding.target)) ?? cycle.findings[0];
  const broken = cycle.actions.find((action) => action.error);
  return { done, why: broken?.error || found?.message || found?.problem || "" };
}

function told(event) {
  const fields = event.fields ?? {};
  return {
    id: `e${event.id}`,
    time: event.time,
    name: event.name,
    node: fields.node ?? "",
    trace: event.trace_id ?? fields.trace_id ?? "",
    targets: fields.target ? [String(fields.target)] : [],
    success: fields.success ?? true,
    fields,
    line: event.line,
  };
}

/** Put what happened into `list`, in the order of time, each once. A cycle that is there in full says more than its event. */
function insert(list, items) {
  const known = new Set(list.map((item) => item.id));
  const traces = new Set(list.filter((item) => item.name === "cycle").map((item) => item.trace));
  const more = [];
  for (const item of items) {
    if (known.has(item.id) || (item.name === "cycle" && traces.has(item.trace))) continue;
    known.add(item.id);
    if (item.name === "cycle") traces.add(item.trace);
    more.push(item);
  }
  if (!more.length) return list;
  const sorted = [...list, ...more].sort((a, b) => (a.time === b.time ? 0 : later(a.time, b.time) ? 1 : -1));
  return sorted.slice(-EVENTS);
}

/** Those of /page/state, with what the page adds. */
export function begin(given, before = null) {
  const cycles = table();
  const happened = [];
  for (const [node, list] of Object.entries(given.cycles ?? {})) {
    const old = before?.cycles?.[node] ?? [];
    cycles[node] = join(old, list);
    happened.push(...cycles[node].filter(notable).map(happening));
  }
  happened.push(...(given.recent ?? []).map(told));
  return {
    ...given,
    cycles,
    latest: latestNotable(before?.latest ?? table(), Object.values(cycles).flat()),
    happened: insert(before?.happened ?? [], happened),
    samples: given.health ? sample(before?.samples ?? [], given.health) : [],
    skew: Number(BigInt(given.now) / 1_000_000n) - Date.now(),
    stored: before?.stored ?? null,
    missed: before?.missed ?? 0,
  };
}

function join(old, list) {
  if (!old.length) return list.slice(-KEPT);
  const last = old[old.length - 1].start;
  const fresh = list.filter((cycle) => later(cycle.start, last));
  return fresh.length ? [...old, ...fresh].slice(-KEPT) : old;
}

function latestNotable(latest, cycles) {
  let next = latest;
  for (const cycle of cycles) {
    if (!notable(cycle)) continue;
    const known = next[cycle.node];
    if (known && !later(cycle.start, known.start)) continue;
    if (next === latest) next = table(latest);
    next[cycle.node] = cycle;
  }
  return next;
}

function sample(samples, health) {
  const spans = health.spans ?? {};
  const one = { at: Date.now(), lag: health.loop_lag_ms ?? {}, ended: spans.ended ?? 0, cpu: health.cpu, stored: health.store?.spans };
  return [...samples, one].slice(-SAMPLES);
}

/** The state after `events` ([type, data] each). */
export function apply(state, events) {
  if (!events.length) return state;
  const next = { ...state };
  const fresh = table();
  const happened = [];
  for (const [type, data] of events) {
    if (type === "cycle") (fresh[data.node] ??= []).push(data);
    else if (type === "event") happened.push(told(data));
    else if (type === "mesh") Object.assign(next, data);
    else if (type === "health") {
      next.health = data;
      next.samples = sample(next.samples, data);
      if (data.report) next.report = data.report;
    } else if (type === "stored") next.stored = data;
    else if (type === "lost") next.missed += data.count;
  }
  if (Object.keys(fresh).length) {
    next.cycles = table(state.cycles);
    for (const [node, list] of Object.entries(fresh)) {
      next.cycles[node] = join(state.cycles[node] ?? [], list);
      next.latest = latestNotable(next.latest, list);
      happened.push(...list.filter(notable).map(happening));
    }
  }
  if (happened.length) next.happened = insert(next.happened, happened);
  return next;
}

/** Where what happened can be looked at: its trace, or else the traces of what was done to its targets at that time. */
export function whereOf(item) {
  if (item.trace) return `#/trace/${item.trace}`;
  const target = item.targets[0];
  if (!target) return null;
  const time = BigInt(item.time);
  const q = `{ event:name = "action" && event.target = ${JSON.stringify(target)} }`;
  return `#/search?${new URLSearchParams({ q, from: String(time - BEFORE), to: String(time + AFTER) })}`;
}

/** How many cycles `state` has seen, of all nodes. */
export function cyclesOf(state) {
  let sum = 0;
  for (const node of state.nodes ?? []) {
    const list = state.cycles[node.id];
    sum += Math.max(node.cycles, list?.length ? list[list.length - 1].cycle : 0);
  }
  return sum;
}

/** What happened, newest first, each with the trace that shows it: of a fault, the first cycle that dealt with its target. */
export function explained(happened) {
  const cycles = happened.filter((item) => item.name === "cycle");
  const shown = [];
  for (const item of happened) {
    if (item.trace) {
      shown.push(item);
      continue;
    }
    const fault = item.name.startsWith("fault.");
    const since = item.name === "fault.injected" ? item.time : (beginningOf(happened, item)?.time ?? item.time);
    const found = cycles.find(
      (cycle) => cycle.targets.some((target) => about(target, item.targets)) && (fault ? later(cycle.time, since) : near(cycle.time, item.time)),
    );
    // What a cycle did is told by the cycle itself.
    if (found && !fault) continue;
    shown.push(found ? { ...item, trace: found.trace } : item);
  }
  return shown.reverse();
}

const beginningOf = (happened, item) =>
  happened.find((other) => other.name === "fault.injected" && other.fields?.number === item.fields?.number);

const ends = (target) => target.split(/[~>]/);

/** Whether what is done to one concerns the other: the same link whichever way round, or a link and a node at its end. */
function concerns(one, other) {
  const [a, b] = [ends(one), ends(other)];
  const shared = a.filter((end) => b.includes(end)).length;
  return shared === Math.min(a.length, b.length);
}

const about = (target, targets) => targets.some((one) => concerns(one, target));
const near = (a, b) => Math.abs(Number(BigInt(a) - BigInt(b))) < 2e9;
