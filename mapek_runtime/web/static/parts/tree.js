// The spans of a trace as a tree, in the order in which they are drawn; and its critical path. Pure.
//
// Nothing here recurses: a trace may be a chain of a hundred thousand spans, or hostile (spans that are
// each other's parents).

const PHASE = /^mape_k\.(monitor|analyze|plan|execute|knowledge)$/;

/** The phase that a span is, or "". */
export const phaseOf = (span) => PHASE.exec(span.name)?.[1] ?? "";

/** A trace: `nodes` in the order of drawing, times in nanoseconds since its start. */
export function treeOf(spans) {
  if (!spans.length) return { nodes: [], byId: new Map(), roots: [], start: 0n, duration: 0, errors: 0 };
  const starts = spans.map((span) => BigInt(span.start));
  const start = starts.reduce((a, b) => (b < a ? b : a));
  const byId = new Map();
  const all = spans.map((span, i) => {
    const from = Number(starts[i] - start);
    const node = {
      span,
      parent: null,
      children: [],
      depth: 0,
      size: 1, // itself and its descendants
      index: -1,
      start: from,
      end: from + Number(span.duration),
      phase: phaseOf(span),
      lane: "",
      orphan: false,
    };
    byId.set(span.span_id, node);
    return node;
  });
  for (const node of all) {
    const parent = node.span.parent_id ? byId.get(node.span.parent_id) : undefined;
    if (parent && parent !== node) {
      node.parent = parent;
      parent.children.push(node);
    } else {
      node.orphan = Boolean(node.span.parent_id);
    }
  }
  const order = (a, b) => a.start - b.start || b.end - a.end;
  for (const node of all) if (node.children.length > 1) node.children.sort(order);

  const nodes = [];
  const roots = [];
  const draw = (root) => {
    roots.push(root);
    const stack = [root];
    while (stack.length) {
      const node = stack.pop();
      if (node.index >= 0) continue;
      node.index = nodes.length;
      nodes.push(node);
      node.depth = node === root ? 0 : node.parent.depth + 1;
      // Work inside a phase has the phase's colour, all other spans that of their service.
      node.lane = node.phase || (node === root ? "" : node.parent.lane);
      for (let i = node.children.length - 1; i >= 0; i--) stack.push(node.children[i]);
    }
  };
  for (const node of all.filter((n) => !n.parent).sort(order)) draw(node);
  for (const node of all) {
    if (node.index >= 0) continue;
    // Reached from no root: a ring of parents, opened here.
    node.parent.children = node.parent.children.filter((child) => child !== node);
    node.parent = null;
    node.orphan = true;
    draw(node);
  }
  for (let i = nodes.length - 1; i >= 0; i--) if (nodes[i].parent) nodes[i].parent.size += nodes[i].size;
  let end = 0;
  let errors = 0;
  for (const node of nodes) {
    end = Math.max(end, node.end);
    if (node.span.status === "error") errors++;
  }
  return { nodes, byId, roots, start, duration: end, errors };
}

/** The rows to draw: what is inside a collapsed span is left out. */
export function visible(tree, collapsed) {
  if (!collapsed.size) return tree.nodes;
  const rows = [];
  for (let i = 0; i < tree.nodes.length; ) {
    const node = tree.nodes[i];
    rows.push(node);
    i += collapsed.has(node.span.span_id) ? node.size : 1;
  }
  return rows;
}

/** What the duration of the trace was made of: for each node on the path, the times [from, to].
 *
 * Read backwards from the end of the longest root: at each moment the path is in the child that ended last
 * before it, else in the span itself.
 */
export function criticalPath(tree) {
  const path = new Map();
  let root = null;
  for (const one of tree.roots) if (!root || one.end - one.start > root.end - root.start) root = one;
  if (!root) return path;
  const stack = [[root, root.start, root.end]];
  while (stack.length) {
    const [node, floor, until] = stack.pop();
    const from = Math.max(node.start, floor);
    let cursor = Math.min(node.end, until);
    const own = [];
    const children = [...node.children].sort((a, b) => b.end - a.end);
    for (const child of children) {
      // What outlasts its parent counts as far as the parent waited.
      const end = Math.min(child.end, Math.min(node.end, until));
      if (end > cursor || child.start >= end || end <= from) continue;
      if (cursor > end) own.push([end, cursor]);
      stack.push([child, from, end]);
      cursor = Math.max(child.start, from);
    }
    if (cursor > from) own.push([from, cursor]);
    if (own.length) path.set(node.span.span_id, own);
  }
  return path;
}

/** The nodes in which `text` occurs: name, service, id, status message, attributes, events. */
export function matching(tree, text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const has = (value) => String(value).toLowerCase().includes(wanted);
  const inside = (attributes) =>
    Object.entries(attributes ?? {}).some(([key, value]) => has(`${key}=${value}`));
  return tree.nodes.filter(
    ({ span }) =>
      has(span.name) ||
      has(span.service) ||
      span.span_id === wanted ||
      has(span.status_message ?? "") ||
      inside(span.attributes) ||
      (span.events ?? []).some((event) => has(event.name) || inside(event.attributes)),
  );
}
