// The page's texts in the reader's language, and numbers the way that language writes them.

import { preference } from "./preferences.js";
import en from "./strings/en.js";
import zh from "./strings/zh.js";

const LANGUAGES = { en, zh };

export function language() {
  const chosen = preference("language");
  if (chosen in LANGUAGES) return chosen;
  return navigator.language?.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** The text of `key` with `{name}` replaced by `values.name`. */
export function t(key, values = {}) {
  const text = LANGUAGES[language()][key];
  if (text === undefined) throw new Error(`no text for ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

const tag = () => (language() === "zh" ? "zh-CN" : "en");

export function number(value, digits = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return new Intl.NumberFormat(tag(), { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

export function percent(value, digits = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return new Intl.NumberFormat(tag(), { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** A large number in few letters: 12.3M. */
export function compact(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return new Intl.NumberFormat(tag(), { notation: "compact", maximumSignificantDigits: 3 }).format(value);
}

/** A small number such as a learning rate: 4.0e-3. */
export function small(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value === 0 ? "0" : value.toExponential(1);
}

/** Bytes in units of 1024, as memory is counted. */
export function bytes(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  return `${number(value / 1024 ** step, step > 2 ? 2 : 0)} ${units[step]}`;
}

/** The unit that `bytes` would tell `value` in. */
export function byteUnit(value) {
  return 1024 ** Math.floor(Math.log2(Math.max(1, value)) / 10);
}

/** Seconds, in the unit that leaves a readable number. */
export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value < 0.001) return `${number(value * 1e6)} µs`;
  if (value < 1) return `${number(value * 1e3, value < 0.01 ? 1 : 0)} ms`;
  if (value < 120) return `${number(value, value < 10 ? 2 : 1)} s`;
  if (value < 7200) return `${number(value / 60)} min`;
  return `${number(value / 3600, 1)} h`;
}

export function dateLabel(time) {
  const days = Math.floor((new Date().setHours(0, 0, 0, 0) - new Date(time).setHours(0, 0, 0, 0)) / 86400000);
  if (days <= 0) return t("date.today");
  if (days === 1) return t("date.yesterday");
  return new Intl.DateTimeFormat(tag(), { month: "long", day: "numeric" }).format(time);
}
