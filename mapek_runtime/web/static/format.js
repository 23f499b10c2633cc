// Numbers and times as people read them. Nanoseconds come as decimal strings, because a double cannot hold them.

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A count, with separators. */
export const count = (n) => (n === null || n === undefined ? "–" : whole.format(n));

/** A count in little room: 1.2K. */
export const short = (n) => (n < 10_000 ? whole.format(n) : compact.format(n));

/** Milliseconds, with three digits that matter. */
export function ms(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value < 0.0005) return "0 ms";
  if (value < 0.1) return `${(value * 1000).toFixed(0)} µs`;
  if (value < 1) return `${value.toFixed(2)} ms`;
  if (value < 100) return `${value.toFixed(1)} ms`;
  if (value < 1000) return `${value.toFixed(0)} ms`;
  return `${(value / 1000).toFixed(value < 10_000 ? 2 : 1)} s`;
}

/** A share of one. */
export function percent(share, digits = 1) {
  if (share === null || share === undefined || Number.isNaN(share)) return "–";
  if (share === 0 || share === 1) return `${share * 100} %`;
  // What is not nothing does not look like nothing, and what is not all not like all.
  const least = 10 ** -digits;
  if (share > 0 && share * 100 < least) return `< ${least} %`;
  if (share < 1 && share * 100 > 100 - least) return `> ${100 - least} %`;
  return `${(share * 100).toFixed(digits)} %`;
}

/** Bytes in binary units. */
export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  let value = n;
  while (value >= 1024 && power < units.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${power === 0 ? value : value.toFixed(1)} ${units[power]}`;
}

/** Nanoseconds since 1970 (a decimal string) as milliseconds since 1970. */
export function millis(ns) {
  const text = String(ns);
  return text.length > 6 ? Number(text.slice(0, -6)) + Number(text.slice(-6)) / 1e6 : Number(text) / 1e6;
}

/** The wall clock of a moment: 14:03:07.412. */
export function clock(ns) {
  const at = new Date(millis(ns));
  const two = (n) => String(n).padStart(2, "0");
  const thousandth = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${thousandth}`;
}

/** Seconds as a length of time: 42 s, 3 min 10 s, 2 h 4 min. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s % 60 ? ` ${s % 60} s` : ""}`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** A text of which nobody reads more than the beginning: a sender may write megabytes. */
export const cut = (text, most = 200) => (text.length > most ? `${text.slice(0, most)}…` : text);

/** Class names of those that are true. */
export const names = (...parts) => parts.filter(Boolean).join(" ");
