// What lies over the page or stands in its place: the keys, short notes, the field for the token.

import { html, useEffect, useRef, useState } from "./lib/htm/preact.js";

const KEYS = [
  ["space", "pause, follow again"],
  ["1 – 5", "loop, mesh, search, phases, health"],
  ["/", "search"],
  ["← →", "the cycle before, the cycle after"],
  ["k j  or  ↑ ↓", "the node above, the node below"],
  ["Enter", "open the trace of the cycle"],
  ["Esc", "let go of the cycle; close what is open"],
  ["?", "these keys"],
];

/** A modal dialog; the browser keeps the focus inside and gives it back. */
export function Dialog({ title, close, children }) {
  const ref = useRef(null);
  useEffect(() => {
    const dialog = ref.current;
    const before = document.activeElement;
    dialog.showModal();
    return () => before?.focus?.();
  }, []);
  const outside = (event) => event.target === ref.current && close();
  return html`<dialog ref=${ref} onClose=${close} onClick=${outside} aria-labelledby="dialog-title">
    <div class="dialog">
      <h2 id="dialog-title">${title}</h2>
      ${children}
    </div>
  </dialog>`;
}

export function Keys({ close }) {
  return html`<${Dialog} title="Keys" close=${close}>
    <dl class="keys">
      ${KEYS.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}
    </dl>
    <form method="dialog"><button autofocus>Close</button></form>
  <//>`;
}

export function Notes({ notes }) {
  return html`<div class="notes" role="status" aria-live="polite">
    ${notes.map((one) => html`<p key=${one.id} class=${one.kind}>${one.text}</p>`)}
  </div>`;
}

export function Token({ use, message }) {
  const [value, setValue] = useState("");
  const send = (event) => {
    event.preventDefault();
    if (value.trim()) use(value.trim());
  };
  return html`<section class="notice">
    <h1>This service wants a token</h1>
    <p>It was started with one, which whoever looks has to give: what <code>web.token</code>, <code>web.token_file</code> or <code>MAPEK_WEB_TOKEN</code> says there.</p>
    <form class="line" onSubmit=${send}>
      <label for="token">Token</label>
      <input id="token" type="password" autocomplete="off" spellcheck="false" value=${value} onInput=${(event) => setValue(event.target.value)} />
      <button class="primary">Open</button>
    </form>
    <p class="muted" role="status">${message ? `The service said: ${message}.` : ""} It is kept until this tab is closed.</p>
  </section>`;
}
