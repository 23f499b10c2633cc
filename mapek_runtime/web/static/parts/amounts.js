// Times and durations as people read them. Nanoseconds since 1970 come as decimal strings, because a
// double cannot hold them: they are BigInt here, and differences between them are Numbers.

const UNITS = [
  [3600e9, "h"],
  [60e9, "min"],
  [1e9, "s"],
  [1e6, "ms"],
  [1e3, "µs"],
  [1, "ns"],
];

const round = (value) => {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return String(Number(value.toFixed(digits)));
};

/** A duration in nanoseconds with three digits and its unit: `1.25 ms`. */
export function duration(ns) {
  if (!(ns > 0)) return "0";
  for (const [size, unit] of UNITS) {
    // 999.96 µs is 1 ms.
    if (Number(round(ns / size)) >= 1) return `${round(ns / size)} ${unit}`;
  }
  return `${round(ns)} ns`;
}

/** A duration in a form that both query languages read, rounded to three digits down or up. */
export function bound(ns, direction) {
  const step = 10 ** Math.max(0, Math.floor(Math.log10(Math.max(1, ns))) - 2);
  const whole = Math.max(0, (direction === "up" ? Math.ceil(ns / step) : Math.floor(ns / step)) * step);
  for (const [size, unit] of [[1e9, "s"], [1e6, "ms"], [1e3, "us"]]) {
    if (whole >= size) return `${Number((whole / size).toFixed(9))}${unit}`;
  }
  return `${whole}ns`;
}

const WRITTEN = { ns: 1, us: 1e3, µs: 1e3, μs: 1e3, ms: 1e6, s: 1e9, m: 60e9, min: 60e9, h: 3600e9 };

/** Nanoseconds of what somebody wrote, such as `50ms`; null when it is none. */
export function parseDuration(text) {
  const found = /^\s*(\d+(?:\.\d+)?|\.\d+)\s*(ns|us|µs|μs|ms|s|m|min|h)\s*$/.exec(text);
  return found ? Math.round(Number(found[1]) * WRITTEN[found[2]]) : null;
}

const two = (n) => String(n).padStart(2, "0");
const date = (ns) => new Date(Number(ns / 1_000_000n));

/** The time of day: `14:03:07.123`. */
export function clock(ns, digits = 3) {
  const at = date(ns);
  const part = digits ? `.${String(at.getMilliseconds()).padStart(3, "0").slice(0, digits)}` : "";
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}${part}`;
}

/** Day and time of day. */
export function moment(ns) {
  const at = date(ns);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(ns)}`;
}

export const now = () => BigInt(Date.now()) * 1_000_000n;

/** How long ago: `12 s ago`. */
export function ago(ns, from = now()) {
  const seconds = Number(from - ns) / 1e9;
  if (seconds < 1) return "just now";
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return "just now";
}

/** `1 span`, `2 spans`, `12,345 spans`. */
export function count(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** A number as evidence shows it: at most four digits, no noise of doubles. */
export function number(value) {
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return String(Number(value.toPrecision(4)));
}

const TURNS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** Moments for an axis of `length` nanoseconds from `from`, at round times of the day: nanoseconds after `from`. */
export function moments(from, length, about = 5) {
  const seconds = length / 1e9 / about;
  if (seconds < 0.5) return steps(0, length, about);
  const turn = TURNS.find((one) => one >= seconds) ?? Math.ceil(seconds / 86400) * 86400;
  const start = Number(from / 1_000_000n);
  const zone = new Date(start).getTimezoneOffset() * 60_000;
  const step = turn * 1000;
  const out = [];
  for (let at = Math.ceil((start - zone) / step) * step + zone; (at - start) * 1e6 <= length; at += step) out.push((at - start) * 1e6);
  return out;
}

/** Steps for an axis from `from` to `to`: round numbers, about `about` of them. */
export function steps(from, to, about = 5) {
  const span = to - from;
  if (!(span > 0)) return [from];
  const rough = span / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const out = [];
  for (let at = Math.ceil(from / step) * step; at <= to + step * 1e-9; at += step) out.push(at);
  return out;
}
