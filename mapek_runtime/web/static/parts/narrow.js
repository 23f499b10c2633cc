// The bounds of a query: what the brush and the fields beside the query say is added to what was written.
// Pure.

import { parseDuration } from "./amounts.js";

const ONE_FILTER = /^\s*\{((?:[^{}"`]|"(?:\\.|[^"\\])*"|`[^`]*`)*)\}\s*(\|(?!\|)[\s\S]*)?$/;

export const isTraceQL = (text) => /^\s*\(*\s*\{/.test(text);

/** `text` with bounds of the duration (`50ms`; "" is none); null where they have no place in it.
 *
 * A query that relates spans to one another has several places for a bound, and only who wrote it knows
 * which is meant.
 */
export function narrowed(text, least, most) {
  const bounds = [least && `duration >= ${least}`, most && `duration <= ${most}`].filter(Boolean);
  if (!bounds.length) return text;
  if (!text.trim()) return `{ ${bounds.join(" && ")} }`;
  if (!isTraceQL(text)) return `(${text.trim()}) AND ${bounds.join(" AND ")}`;
  const found = ONE_FILTER.exec(text);
  if (!found) return null;
  const inner = found[1].trim();
  const condition = inner ? `(${inner}) && ${bounds.join(" && ")}` : bounds.join(" && ");
  return `{ ${condition} }${found[2] ? ` ${found[2].trim()}` : ""}`;
}

/** The query with one more condition of TraceQL; null where it has no place in it.
 *
 * What was written in the seed's syntax becomes `canonical`, the same in TraceQL.
 */
export function narrowedBy(text, canonical, condition) {
  const found = ONE_FILTER.exec(isTraceQL(text) ? text : canonical);
  if (!found) return null;
  const inner = found[1].trim();
  // In TraceQL && and || bind alike.
  const kept = inner.includes("||") ? `(${inner})` : inner;
  return `{ ${kept ? `${kept} && ` : ""}${condition} }${found[2] ? ` ${found[2].trim()}` : ""}`;
}

export const RANGES = [
  ["5m", "last 5 min", 300],
  ["15m", "last 15 min", 900],
  ["1h", "last hour", 3600],
  ["6h", "last 6 hours", 6 * 3600],
  ["24h", "last 24 hours", 86400],
  ["all", "all that is kept", 0],
];

/** What the address says about a search, with what is left out filled in. */
export function readAsked(params) {
  const digits = (name) => (/^\d{1,19}$/.test(params.get(name) ?? "") ? params.get(name) : "");
  const limit = Number(params.get("limit"));
  return {
    q: params.get("q") ?? "",
    range: RANGES.some(([key]) => key === params.get("range")) ? params.get("range") : "1h",
    from: digits("from"),
    to: digits("to"),
    least: params.get("min") ?? "",
    most: params.get("max") ?? "",
    limit: [20, 50, 100, 200].includes(limit) ? limit : 20,
    sort: params.get("sort") === "longest" ? "longest" : "newest",
    follow: params.get("follow") === "1",
  };
}

/** The address that says it, the shortest that does. */
export function writeAsked(asked) {
  const params = new URLSearchParams();
  if (asked.q) params.set("q", asked.q);
  // The range stays when a time was brushed: it is what lies around that time, and what is gone back to.
  if (asked.range !== "1h") params.set("range", asked.range);
  if (asked.from) params.set("from", asked.from);
  if (asked.to) params.set("to", asked.to);
  if (asked.least) params.set("min", asked.least);
  if (asked.most) params.set("max", asked.most);
  if (asked.limit !== 20) params.set("limit", String(asked.limit));
  if (asked.sort !== "newest") params.set("sort", asked.sort);
  if (asked.follow) params.set("follow", "1");
  const text = params.toString();
  return `#/search${text ? `?${text}` : ""}`;
}

/** The bounds in time as the service reads them: `start` and `end`, where there are any. */
export function times(asked, now) {
  const out = {};
  if (asked.from || asked.to) {
    if (asked.from) out.start = asked.from;
    if (asked.to) out.end = asked.to;
    return out;
  }
  const seconds = RANGES.find(([key]) => key === asked.range)[2];
  if (seconds) out.start = String(now - BigInt(seconds) * 1_000_000_000n);
  return out;
}

/** The bounds of what is brushed and of what lies around it, as `/page/difference` reads them; null without a brush. */
export function around(asked, now) {
  const brush = {};
  if (asked.from) brush.from = asked.from;
  if (asked.to) brush.to = asked.to;
  const [shortest, longest] = [parseDuration(asked.least), parseDuration(asked.most)];
  if (shortest !== null) brush.shortest = String(shortest);
  if (longest !== null) brush.longest = String(longest);
  if (!Object.keys(brush).length) return null;
  const { start } = times({ ...asked, from: "", to: "" }, now);
  // An address that is opened later still has something around its brush.
  if (start) brush.start = asked.from && BigInt(asked.from) < BigInt(start) ? asked.from : start;
  return { q: asked.q, ...brush };
}
