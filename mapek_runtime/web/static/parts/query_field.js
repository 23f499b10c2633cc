// The field for a query: suggestions while typing, and what is wrong under the column where it is.

import { html, useEffect, useRef, useState } from "../lib/htm/preact.js";
import { isTraceQL } from "./narrow.js";
import { suggestions, tagOf, writing } from "./suggest.js";

const FRESH = 30_000; // Milliseconds that what the store knows is taken as known.

/** What the store knows, asked for when it is wanted and kept for a while. */
function useKnown(api) {
  const kept = useRef(new Map());
  const [, redraw] = useState(0);
  return (path, pick) => {
    const known = kept.current.get(path);
    if (!known || Date.now() - known.at > FRESH) {
      kept.current.set(path, { at: Date.now(), value: known?.value });
      api
        .get(path)
        .then((told) => {
          kept.current.set(path, { at: Date.now(), value: pick(told) });
          redraw((n) => n + 1);
        })
        // Without suggestions a query can be written all the same.
        .catch(() => {});
    }
    return kept.current.get(path)?.value;
  };
}

function Wrong({ text, error }) {
  const column = error.column;
  // Columns count from 1; the end of the text may be what is wrong.
  const at = Number.isInteger(column) ? Math.max(0, Math.min(column - 1, text.length)) : null;
  return html`<div class="t-wrong" role="alert" id="t-wrong">
    ${at !== null &&
    html`<pre aria-hidden="true">${text}${"\n"}${" ".repeat(at)}<b>^</b></pre>`}
    <p>${error.message}</p>
  </div>`;
}

export function QueryField({ text, setText, submit, error, api, field }) {
  const [caret, setCaret] = useState(null); // null: no suggestions are wanted
  const [picked, setPicked] = useState(-1);
  const own = useRef(null);
  const input = field ?? own;
  const known = useKnown(api);
  const list = useRef(null);

  let options = [];
  let at = null;
  if (caret !== null) {
    const traceql = isTraceQL(text);
    at = writing(text, caret, traceql);
    const services = known("/page/services", (told) => told.services) ?? [];
    const about = { services: services.map((one) => one.name) };
    about.operations = [...new Set(services.flatMap((one) => one.operations.map((op) => op.name)))].sort();
    if (at.kind === "field") about.tags = known("/page/tags", (told) => told.scopes);
    if (at.kind === "value") {
      const tag = tagOf(at.field, traceql);
      const fixed = /^(service|resource\.service\.name|span\.kind|name|duration|status|kind)$/.test(at.field);
      if (tag && !fixed) {
        about.values = known(`/page/values?tag=${encodeURIComponent(tag)}`, (told) => told.values);
      }
    }
    options = suggestions(at, about, traceql);
  }
  const open = options.length > 0;
  const index = Math.min(picked, options.length - 1);

  useEffect(() => {
    list.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [index]);

  const take = (option) => {
    const rest = text.slice(caret);
    const before = text.slice(0, at.from);
    // The closing quote of a value that is written over, and a blank that is there already.
    const after = option.insert.trim().endsWith('"') ? rest.replace(/^[^"\s]*"/, "") : rest;
    const next = before + option.insert + after.replace(/^ /, "");
    const where = before.length + option.insert.length;
    setText(next);
    setPicked(-1);
    setCaret(where);
    requestAnimationFrame(() => {
      input.current?.focus();
      input.current?.setSelectionRange(where, where);
    });
  };
  const typed = (event) => {
    setText(event.target.value);
    setCaret(event.target.selectionStart);
    setPicked(-1);
  };
  const pressed = (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) return setCaret(event.target.selectionStart);
      const step = event.key === "ArrowDown" ? 1 : -1;
      setPicked(((index < 0 && step < 0 ? 0 : index) + step + options.length) % options.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (open && index >= 0) return take(options[index]);
      setCaret(null);
      submit(text);
    } else if (event.key === "Tab" && !event.shiftKey && open && (index >= 0 || at.text)) {
      event.preventDefault();
      take(options[Math.max(index, 0)]);
    } else if (event.key === "Escape" && open) {
      event.preventDefault();
      event.stopPropagation();
      setCaret(null);
    }
  };
  return html`<div class="t-field">
    <div class="t-combo">
      <input
        ref=${input}
        class="t-query"
        type="text"
        role="combobox"
        aria-label="Query"
        aria-autocomplete="list"
        aria-expanded=${open ? "true" : "false"}
        aria-controls="t-suggest"
        aria-activedescendant=${open && index >= 0 ? `t-suggest-${index}` : null}
        aria-invalid=${error ? "true" : null}
        aria-describedby=${error ? "t-wrong" : null}
        autocomplete="off"
        autocapitalize="off"
        spellcheck=${false}
        placeholder=${'name="mape_k.*" AND node_id="node-1"     or     { span.actions_planned > 0 }'}
        value=${text}
        onInput=${typed}
        onKeyDown=${pressed}
        onClick=${(event) => setCaret(event.target.selectionStart)}
        onBlur=${() => setCaret(null)}
      />
      ${open &&
      html`<ul class="t-suggest" id="t-suggest" role="listbox" aria-label="Suggestions" ref=${list}>
        ${options.map(
          (option, i) => html`<li
            key=${option.label}
            id=${`t-suggest-${i}`}
            role="option"
            aria-selected=${i === index ? "true" : "false"}
            onPointerDown=${(event) => (event.preventDefault(), take(option))}
          >
            <code>${option.label}</code><span>${option.hint}</span>
          </li>`,
        )}
      </ul>`}
    </div>
    ${error && html`<${Wrong} text=${error.text} error=${error} />`}
  </div>`;
}
