// The mesh as a drawing. Nodes stand on a circle in the order of their names, so that the picture is the same every time.

import { ms, names, percent } from "../format.js";
import { html, useMemo } from "../lib/htm/preact.js";

const SIZE = 460;
const HEALED = 6_000; // Milliseconds for which a repair is shown.

/** The name of a link, as faults and actions write it. */
export const keyOf = (link) => `${link.a}~${link.b}`;

const canonical = (target) => target.split(/[~>]/).sort().join("~");

function layout(ids) {
  const radius = SIZE / 2 - 56;
  const at = new Map();
  ids.forEach((id, n) => {
    const angle = (2 * Math.PI * n) / ids.length - Math.PI / 2;
    at.set(id, [SIZE / 2 + radius * Math.cos(angle), SIZE / 2 + radius * Math.sin(angle)]);
  });
  return at;
}

/** Targets that were healed a moment ago. */
function repaired(happened, now) {
  const found = new Map();
  for (const item of happened.slice(-40)) {
    if (item.name !== "fault.healed") continue;
    if (now - Number(BigInt(item.time) / 1_000_000n) > HEALED) continue;
    for (const target of item.targets) found.set(canonical(target), item.fields?.repair_ms);
  }
  return found;
}

function Link({ link, from, to, fault, healed, looked, look }) {
  const key = keyOf(link);
  const [x, y] = [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2];
  const words = `${link.a} to ${link.b}: ${link.state}, loss ${percent(link.loss, 0)}, round trip ${link.rtt ? ms(link.rtt * 1000) : "unknown"}${link.fault ? `, fault ${link.fault}` : ""}`;
  const line = { x1: from[0], y1: from[1], x2: to[0], y2: to[1] };
  return html`<g
    class=${names("link", link.state, fault && "faulty", healed !== undefined && "healed", looked && "looked")}
    tabindex="0"
    role="img"
    aria-label=${words}
    onPointerEnter=${() => look(key)}
    onPointerLeave=${() => look("")}
    onFocus=${() => look(key)}
    onBlur=${() => look("")}
  >
    <line class="touch" ...${line} />
    <line class="halo" ...${line} />
    <line class="wire" ...${line} />
    ${fault && html`<g class="mark" transform=${`translate(${x} ${y})`}><circle r="11" /><path d="M1.5-6.5-4 1H0l-1 5.5L4.5-1H.5z" /></g>`}
    ${!fault && healed !== undefined && html`<g class="mark good" transform=${`translate(${x} ${y})`}><circle r="11" /><path d="m-4.5.5 3 3 6-6.5" /></g>`}
  </g>`;
}

function Node({ node, at, fault, healed }) {
  const [x, y] = at;
  // The name stands on the outer side, where no link runs.
  const away = Math.atan2(y - SIZE / 2, x - SIZE / 2);
  const [cos, sin] = [Math.cos(away), Math.sin(away)];
  const name = { class: names("name", cos > 0.3 ? "right" : cos < -0.3 && "left"), x: cos * 27, y: sin * 36 + 4.5 };
  return html`<g class=${names("vertex", !node.alive && "dead", node.alive && node.leads && "leads", fault && "faulty", healed !== undefined && "healed")} transform=${`translate(${x} ${y})`}>
    <circle class="halo" r="25" />
    <circle class="disc" r="17" />
    ${node.alive && node.leads && html`<path class="crown" d="M-8-22l1-8 4 3.5L0-33l3 6.5L7-30l1 8z"><title>leads</title></path>`}
    ${node.alive ? html`<text class="inside" y="4.5">${node.id.replace(/^\D+/, "").slice(-3) || node.id.slice(0, 2)}</text>` : html`<path class="cross" d="m-6-6 12 12M6-6-6 6" />`}
    <text ...${name}>${node.id}</text>
    ${!node.alive && html`<text ...${name} y=${name.y + (sin < -0.3 ? -16 : 16)}>crashed</text>`}
  </g>`;
}

export default function Graph({ nodes, links, faults, happened, now, looked, look }) {
  const ids = nodes.map((node) => node.id);
  // A name may hold any sign, so that no sign can part them.
  const at = useMemo(() => layout(ids), [JSON.stringify(ids)]);
  const faulty = new Map(faults.map((fault) => [canonical(fault.target), fault]));
  const healed = repaired(happened, now);
  const drawn = links.filter((link) => at.has(link.a) && at.has(link.b));
  // The one that is looked at is drawn last, above the others.
  const order = looked ? [...drawn].sort((a, b) => (keyOf(a) === looked) - (keyOf(b) === looked)) : drawn;
  const one = drawn.find((link) => keyOf(link) === looked);
  return html`<figure class="graph">
    <svg viewBox=${`-45 0 ${SIZE + 90} ${SIZE}`} role="group" aria-label=${`${nodes.length} nodes, ${links.length} links`}>
      ${order.map((link) => {
        const target = canonical(keyOf(link));
        return html`<${Link} key=${keyOf(link)} link=${link} from=${at.get(link.a)} to=${at.get(link.b)} fault=${faulty.has(target) || link.fault} healed=${healed.get(target)} looked=${looked === keyOf(link)} look=${look} />`;
      })}
      ${nodes.map((node) => html`<${Node} key=${node.id} node=${node} at=${at.get(node.id)} fault=${faulty.has(node.id)} healed=${healed.get(node.id)} />`)}
    </svg>
    <figcaption>
      ${one
        ? html`<b>${one.a} – ${one.b}</b> <span class=${`state ${one.state}`}>${one.state}</span> loss ${percent(one.loss, 0)} · round trip ${one.rtt ? ms(one.rtt * 1000) : "–"} <span class="bad">${one.fault}</span>`
        : html`<ul class="legend" aria-label="Links"><li><i class="wire up"></i>up</li><li><i class="wire drained"></i>drained: traffic goes another way</li><li><i class="wire down"></i>down</li></ul>`}
    </figcaption>
  </figure>`;
}
