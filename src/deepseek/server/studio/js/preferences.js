// What the reader chose, kept in the browser: language, theme, panels.

import { Emitter } from "./emitter.js";

const KEY = "deepseek.preferences";
const changed = new Emitter();
const DEFAULTS = {
  language: null, // null: the browser's
  theme: "auto",
  sidebar: true,
  settings: false,
  generation: null, // the settings that a new conversation starts with
};

function load() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

const values = load();

export function preference(name) {
  return values[name];
}

export function prefer(name, value) {
  values[name] = value;
  try {
    localStorage.setItem(KEY, JSON.stringify(values));
  } catch {
    // Storage full or forbidden: the choice holds until the page is closed.
  }
  changed.emit(name, value);
}

export function onPreference(name, listener) {
  return changed.on(name, listener);
}

export function applyTheme() {
  document.documentElement.dataset.theme = values.theme;
}
