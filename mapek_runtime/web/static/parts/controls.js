// What may be done from the page: make a fault and take it away, halt the loop and let it go on.

import { Dialog } from "../dialogs.js";
import { span } from "../format.js";
import { html, useState } from "../lib/htm/preact.js";

const KINDS = {
  "link.down": "link down",
  "link.blackhole": "one-way blackhole",
  "link.loss": "loss on a link",
  "link.delay": "delay on a link",
  "node.crash": "crash of a node",
};

const LONGEST = 3600;

function Inject({ controls, send, busy }) {
  const [kind, setKind] = useState(controls.kinds[0]);
  const targets = controls.targets?.[kind] ?? [];
  const [wanted, setWanted] = useState("");
  const target = targets.includes(wanted) ? wanted : (targets[0] ?? "");
  const [seconds, setSeconds] = useState("10");
  const right = Number(seconds) > 0 && Number(seconds) <= LONGEST;
  const submit = (event) => {
    event.preventDefault();
    if (right && target) send("/page/inject", { kind, target, seconds: Number(seconds) }, `${KINDS[kind] ?? kind} on ${target} for ${seconds} s`);
  };
  return html`<form class="fields" onSubmit=${submit}>
    <label for="kind">Fault</label>
    <select id="kind" value=${kind} onChange=${(event) => setKind(event.target.value)}>
      ${controls.kinds.map((one) => html`<option key=${one} value=${one}>${KINDS[one] ?? one}</option>`)}
    </select>
    <label for="target">On</label>
    <select id="target" value=${target} onChange=${(event) => setWanted(event.target.value)}>
      ${targets.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select>
    <label for="seconds">For</label>
    <span class="with-unit"><input id="seconds" type="number" min="1" max=${LONGEST} step="any" inputmode="decimal" value=${seconds} aria-invalid=${!right} onInput=${(event) => setSeconds(event.target.value)} /> seconds</span>
    <button class="primary" disabled=${busy || !right || !target}>Inject</button>
  </form>`;
}

function InForce({ faults, may, send, busy, now }) {
  if (!faults.length) return html`<p class="muted none">No fault is in force.</p>`;
  return html`<ul class="faults" aria-label="Faults in force">
    ${faults.map((fault) => {
      const since = (now - Number(BigInt(fault.since) / 1_000_000n)) / 1000;
      const left = fault.seconds === null ? null : fault.seconds - since;
      return html`<li key=${fault.number}>
        <span class="line"><b>${KINDS[fault.kind] ?? fault.kind}</b> ${fault.target}<br /><span class="muted">${fault.by === "page" ? "from a page" : `by ${fault.by}`}${left === null ? `, for ${span(since)}` : `, ${span(left)} left`}${fault.by === "chaos" ? ", which clears it itself" : ""}</span></span>
        ${may && fault.by === "page" && html`<button disabled=${busy} aria-label=${`Clear fault ${fault.number}: ${fault.kind} on ${fault.target}`} onClick=${() => send("/page/clear", { number: fault.number }, `fault on ${fault.target} cleared`)}>Clear</button>`}
      </li>`;
    })}
  </ul>`;
}

function Halt({ halt, close }) {
  const [reason, setReason] = useState("");
  const submit = (event) => {
    event.preventDefault();
    if (reason.trim()) halt(reason.trim());
  };
  return html`<${Dialog} title="Halt the loop?" close=${close}>
    <p>It goes on watching and does nothing more, on any node, until it is resumed. What is broken stays broken meanwhile.</p>
    <form onSubmit=${submit}>
      <label for="reason">Why? Everybody who looks will read it.</label>
      <input id="reason" maxlength="200" autocomplete="off" autofocus value=${reason} onInput=${(event) => setReason(event.target.value)} />
      <p class="buttons"><button type="button" onClick=${close}>Let it run</button><button class="danger" disabled=${!reason.trim()}>Halt</button></p>
    </form>
  <//>`;
}

export default function Controls({ state, api, note }) {
  const [busy, setBusy] = useState(false);
  const [asking, setAsking] = useState(false);
  const controls = state.controls ?? {};
  const halted = state.halted != null;
  const send = async (path, body, done) => {
    setBusy(true);
    try {
      await api.post(path, body);
      note(done);
    } catch (error) {
      note(error.message, "bad");
    } finally {
      setBusy(false);
    }
  };
  const halt = (reason) => {
    setAsking(false);
    send("/page/halt", { reason }, "the loop is halted");
  };
  return html`<section class="card controls" aria-label="Faults and the loop">
    <header class="head"><h2>Faults in force</h2></header>
    <${InForce} faults=${state.faults ?? []} may=${controls.faults} send=${send} busy=${busy} now=${Date.now() + state.skew} />
    <header class="head"><h2>Make a fault</h2></header>
    ${controls.faults && controls.kinds?.length
      ? html`<${Inject} controls=${controls} send=${send} busy=${busy} />`
      : html`<p class="muted none">Faults can be made where the emulator runs and <code>web.control</code> is on.</p>`}
    <header class="head"><h2>The loop</h2></header>
    <p class="none">${halted ? html`<span class="bad">Halted</span>: ${state.halted}` : html`${state.heal === false ? "Runs without healing (--no-heal)." : "Runs and heals."}`}</p>
    ${controls.halt &&
    (halted
      ? html`<button class="primary" disabled=${busy} onClick=${() => send("/page/resume", {}, "the loop goes on")}>Resume</button>`
      : html`<button class="danger" disabled=${busy} onClick=${() => setAsking(true)}>Halt…</button>`)}
    ${asking && html`<${Halt} halt=${halt} close=${() => setAsking(false)} />`}
  </section>`;
}
