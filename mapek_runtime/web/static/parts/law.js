// The law of the account, drawn: what came in on one bar, where it is now on another of the same length. If the second is
// shorter or longer than the first, spans were lost without being counted.

import { count, names, percent } from "../format.js";
import { html } from "../lib/htm/preact.js";

const WORDS = {
  ended: "ended",
  accepted: "accepted",
  recovered: "recovered from the spool",
  exported: "exported",
  held: "held for the verdict of their cycle",
  queued: "queued",
  in_flight: "in flight",
  spooled: "spooled on disk",
};

const dropped = (account) => Object.entries(account.dropped ?? {}).map(([reason, n]) => [reason === "sampled_out" ? "sampled out" : `dropped: ${reason.replaceAll("_", " ")}`, n, reason === "sampled_out" ? "sampled-out" : "dropped"]);

/** The two sides: [words, number, class] each. */
export function sides(account) {
  const first = "accepted" in account ? "accepted" : "ended";
  const incoming = [first, "recovered"].map((term) => [WORDS[term], account[term] ?? 0, term]);
  const outgoing = [
    [WORDS.exported, account.exported ?? 0, "exported"],
    ...dropped(account),
    ...["held", "queued", "in_flight", "spooled"].filter((term) => term in account).map((term) => [WORDS[term], account[term], term]),
  ];
  const sum = (terms) => terms.reduce((total, [, n]) => total + n, 0);
  return { incoming, outgoing, came: sum(incoming), went: sum(outgoing) };
}

function Stack({ label, terms, most }) {
  return html`<div class="side" aria-hidden="true"><span>${label}</span><div class="stack">
    ${terms.filter(([, n]) => n > 0).map(([words, n, kind]) => html`<i key=${words} class=${kind} title=${`${words}: ${count(n)}`} style=${{ width: `max(2px, ${(100 * n) / most}%)` }}></i>`)}
  </div></div>`;
}

function Terms({ terms, total }) {
  return terms.map(
    ([words, n, kind]) => html`<tr key=${words} class=${n ? "" : "zero"}>
      <th scope="row"><i class=${names("swatch", kind)}></i>${words}</th>
      <td class="number">${count(n)}</td>
      <td class="number muted">${total ? percent(n / total) : "–"}</td>
    </tr>`,
  );
}

export default function Law({ name, account }) {
  const { incoming, outgoing, came, went } = sides(account);
  const most = Math.max(came, went, 1);
  const off = came - went;
  return html`<section class="card law" aria-label=${`The account of ${name}`}>
    <header class="head">
      <h2>${name}</h2>
      ${off === 0 ? html`<span class="tag ok">adds up</span>` : html`<span class="tag bad">${off > 0 ? `${count(off)} unaccounted for` : `${count(-off)} too many`}</span>`}
    </header>
    <${Stack} label="came in" terms=${incoming} most=${most} />
    <${Stack} label="is now" terms=${outgoing} most=${most} />
    <table>
      <caption class="hidden">What came in, and where it is</caption>
      <tbody class="in"><${Terms} terms=${incoming} total=${came} /></tbody>
      <tbody class="sum"><tr><th scope="row">in all</th><td class="number">${count(came)}</td><td></td></tr></tbody>
      <tbody class="out"><${Terms} terms=${outgoing} total=${came} /></tbody>
      <tbody class="sum"><tr><th scope="row">accounted for</th><td class="number">${count(went)}</td><td class="number">${off === 0 ? "= in all" : "≠ in all"}</td></tr></tbody>
    </table>
  </section>`;
}
