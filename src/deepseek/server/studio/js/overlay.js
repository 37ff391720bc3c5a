// What lies over the page: dialogs, short notes, and the card at the pointer.

import { fill, h } from "./dom.js";
import { icon } from "./icons.js";
import { t } from "./words.js";

/** A modal dialog with a title; `body(close)` gives its content. Escape closes it, the focus returns by itself. */
export function openDialog(title, body, { narrow = false } = {}) {
  const dialog = h("dialog", { class: narrow ? "narrow" : "", "aria-label": title });
  const close = () => dialog.close();
  dialog.append(
    h("div", { class: "dialog-head" },
      h("h2", {}, title),
      h("button", { class: "icon-button", type: "button", "aria-label": t("close"), onclick: close }, icon("close"))),
    h("div", { class: "dialog-body" }, body(close)),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

let noteTimer = null;
const note = h("div", { class: "toast", role: "status", hidden: true });

export function say(text) {
  document.body.append(note);
  fill(note, text);
  note.hidden = false;
  clearTimeout(noteTimer);
  noteTimer = setTimeout(() => (note.hidden = true), 2600);
}

const card = h("div", { class: "tip", role: "tooltip", hidden: true, id: "tip" });

/** Shows `content` beside `anchor` (an element, or a point {x, y}), where there is room. */
export function showTip(anchor, ...content) {
  document.body.append(card);
  fill(card, ...content);
  card.hidden = false;
  const box = anchor instanceof Element ? anchor.getBoundingClientRect() : { left: anchor.x, right: anchor.x, top: anchor.y, bottom: anchor.y };
  const { width, height } = card.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left, innerWidth - width - 8));
  const above = box.top - height - 8;
  card.style.left = `${left}px`;
  card.style.top = `${above > 8 ? above : Math.min(box.bottom + 8, innerHeight - height - 8)}px`;
}

export function hideTip() {
  card.hidden = true;
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    say(t("copied"));
  } catch {
    // Without a secure origin there is no clipboard interface: select the text in a field, and copy that.
    const field = h("textarea", { class: "hidden-text", value: text });
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    say(t(done ? "copied" : "copy.failed"));
  }
}
