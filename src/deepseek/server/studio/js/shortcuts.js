// Single keys, where nothing is being written; the list that `?` shows is made of the same table.

import { h } from "./dom.js";
import { openDialog } from "./overlay.js";
import { t } from "./words.js";

export const KEYS = {
  1: "page.chat", 2: "page.experts", 3: "page.server", 4: "page.training",
  "/": "write", n: "new", r: "regenerate", c: "continue", e: "edit", p: "tokens", a: "attach", "[": "previous", "]": "next",
  s: "settings", b: "sidebar", x: "compare", l: "language", t: "theme", "?": "help", Escape: "escape",
};

function isWriting(target) {
  return target.closest?.("input:not([type=checkbox], [type=range]), textarea, select, [contenteditable]");
}

/** Calls `act(name)` for the keys above; it gives back whether it did something. */
export function listen(act) {
  document.addEventListener("keydown", (event) => {
    const name = KEYS[event.key];
    if (!name || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("dialog[open]") || (isWriting(event.target) && event.key !== "Escape")) return;
    if (act(name)) event.preventDefault();
  });
}

export function openHelp() {
  const rows = [["Enter", "key.send"], ["Shift+Enter", "key.line"], ...Object.entries(KEYS).map(([key, name]) => [key === "Escape" ? "Esc" : key, `key.${name}`])];
  openDialog(t("help"), () => [
    h("table", { class: "keys" }, rows.map(([key, text]) => h("tr", {}, h("td", {}, key.split("+").map((part) => h("kbd", {}, part))), h("td", {}, t(text))))),
    h("p", { class: "weak" }, t("help.tokens")),
  ], { narrow: true });
}
