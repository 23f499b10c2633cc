// Which colour a span has: that of its phase; in a trace without phases that of its service.

const PALETTE = ["--accent", "--knowledge", "--plan", "--analyze", "--execute", "--monitor"];

const kept = new WeakMap(); // tree -> what is known of its lanes

function lanesOf(tree) {
  let lanes = kept.get(tree);
  if (!lanes) {
    const services = [...new Set(tree.nodes.map((node) => node.span.service))].sort();
    lanes = {
      phased: tree.nodes.some((node) => node.phase),
      services: new Map(services.map((service, i) => [service, i % PALETTE.length])),
    };
    kept.set(tree, lanes);
  }
  return lanes;
}

/** The lane of a node: the class of its row, and the variable of its colour. */
export function laneOf(tree, node) {
  const { phased, services } = lanesOf(tree);
  if (node.lane) return { name: `t-lane-${node.lane}`, variable: `--${node.lane}` };
  if (phased) return { name: "t-lane-none", variable: "--muted" };
  const i = services.get(node.span.service);
  return { name: `t-lane-${i}`, variable: PALETTE[i] };
}
