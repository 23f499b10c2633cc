// What could be written at the caret of a query: fields, operators, values. Pure.

const INTRINSIC = [
  ["name", "the span's name"],
  ["duration", "the span's own, such as 50ms"],
  ["status", "ok, error or unset"],
  ["kind", "internal, server, client …"],
  ["statusMessage", "why it failed"],
  ["rootName", "name of the trace's root"],
  ["rootServiceName", "service of the trace's root"],
  ["traceDuration", "of the whole trace"],
  ["link:traceID", "trace that it is linked to"],
  ["event:name", "name of an event"],
];
const SEED = [
  ["service", "resource service.name"],
  ["name", "the span's name; * and ? stand for any"],
  ["duration", "the span's own, such as 50ms"],
  ["status", "ok, error or unset"],
  ["span.kind", "INTERNAL, SERVER, CLIENT …"],
];
const KINDS = ["internal", "server", "client", "producer", "consumer", "unspecified"];
const STATUSES = ["ok", "error", "unset"];
const DURATIONS = ["1ms", "10ms", "50ms", "100ms", "1s"];
const OPERATOR = /(=~|!~|>=|<=|!=|=|>|<)/;
const FIELD = /[A-Za-z_][\w.:-]*$|\.[\w.-]*$/;
const VALUE = new RegExp(`([A-Za-z_.][\\w.:-]*)\\s*${OPERATOR.source}\\s*("(?:[^"\\\\]|\\\\.)*|[\\w.*?-]*)$`);
const AFTER_FIELD = /(?:^|[\s({!])([A-Za-z_.][\w.:-]*)\s+$/;
const WORDS = new Set(["and", "or", "not", "select", "by", "count"]);

const quoted = (text) => `"${String(text).replace(/[\\"]/g, "\\$&")}"`;

const inString = (text) => (text.replace(/\\./g, "").match(/"/g)?.length ?? 0) % 2 === 1;

/** The tag whose values are wanted for a field as it was written; "" where there are none to ask for. */
export function tagOf(field, traceql) {
  if (/^(span|resource|event|link|instrumentation)\./.test(field)) return field;
  if (field.startsWith(".")) return `span${field}`;
  if (traceql || /[:]/.test(field)) return "";
  return `span.${field}`;
}

/** What is being written before the caret: `{kind: "field"|"value"|"operator"|"none", from, text, field}`. */
export function writing(text, caret, traceql) {
  const before = text.slice(0, caret);
  const value = VALUE.exec(before);
  if (value && !(inString(before) && !value[3].startsWith('"'))) {
    return { kind: "value", field: value[1], from: caret - value[3].length, text: value[3].replace(/^"/, "") };
  }
  if (inString(before)) return { kind: "none", from: caret, text: "" };
  const after = AFTER_FIELD.exec(before);
  if (after && !WORDS.has(after[1].toLowerCase())) return { kind: "operator", from: caret, text: "", field: after[1] };
  if (/["}\d)]\s*$/.test(before) && before.trim()) {
    if (traceql && /\}\s*$/.test(before)) return { kind: "none", from: caret, text: "" };
    if (/\s$/.test(before)) return { kind: "join", from: caret, text: "" };
  }
  const field = FIELD.exec(before);
  return { kind: "field", from: caret - (field?.[0].length ?? 0), text: field?.[0] ?? "" };
}

/** Up to twelve suggestions `{insert, label, hint}` for what is being written.
 *
 * `known`: `services` (names), `operations` (names), `tags` (by scope), `values` (for the field written).
 */
export function suggestions(at, known, traceql) {
  const wanted = at.text.toLowerCase();
  const fits = (label) => label.toLowerCase().includes(wanted) && label.toLowerCase() !== wanted;
  const best = (options) =>
    options
      .filter((option) => fits(option.label))
      .sort((a, b) => Number(b.label.toLowerCase().startsWith(wanted)) - Number(a.label.toLowerCase().startsWith(wanted)))
      .slice(0, 12);
  if (at.kind === "operator") {
    return ["=", "!=", ">=", "<=", ...(traceql ? ["=~", "!~"] : [])].map((op) => ({ insert: `${op} `, label: op, hint: "" }));
  }
  if (at.kind === "join") {
    return (traceql ? ["&&", "||"] : ["AND", "OR"]).map((word) => ({ insert: `${word} `, label: word, hint: "" }));
  }
  if (at.kind === "field") {
    const tags = known.tags ?? {};
    const of = (scope, prefix) =>
      (tags[scope] ?? []).map((tag) => ({ label: `${prefix}${tag}`, hint: `${scope} attribute` }));
    const fixed = (traceql ? INTRINSIC : SEED).map(([label, hint]) => ({ label, hint }));
    const own = traceql ? of("span", "span.") : of("span", "");
    const names = new Set(fixed.map((option) => option.label));
    const all = [...fixed, ...own.filter((o) => !names.has(o.label)), ...of("resource", "resource."), ...of("event", "event.")];
    return best(all.map((option) => ({ ...option, insert: `${option.label} ` })));
  }
  if (at.kind !== "value") return [];
  const bare = (values, hint = "") => best(values.map((value) => ({ insert: `${value} `, label: value, hint })));
  const strings = (values, hint = "") => best(values.map((value) => ({ insert: `${quoted(value)} `, label: value, hint })));
  switch (at.field) {
    case "service":
    case "resource.service.name":
    case "rootServiceName":
    case "rootService":
      return strings(known.services ?? [], "service");
    case "name":
    case "rootName":
    case "span:name":
      return strings(known.operations ?? [], "operation");
    case "duration":
    case "span:duration":
    case "traceDuration":
      return bare(DURATIONS);
    case "status":
    case "span:status":
      return bare(STATUSES);
    case "kind":
    case "span:kind":
      return bare(KINDS);
    case "span.kind":
      return strings(KINDS.map((kind) => kind.toUpperCase()));
    default:
      return best(
        (known.values ?? []).map(({ type, value }) => ({
          insert: `${type === "string" ? quoted(value) : value} `,
          label: String(value),
          hint: type,
        })),
      );
  }
}
