// Where the next message is written.

import { fill, h } from "../dom.js";
import { icon } from "../icons.js";
import { say } from "../overlay.js";
import { number, t } from "../words.js";
import { chips, MOST_BYTES, MOST_FILES, readAttachment } from "./attachments.js";

const TALLEST = 240; // pixels

export class Composer {
  #files = [];

  constructor(session) {
    this.session = session;
    this.shelf = h("div", { class: "shelf", hidden: true });
    this.picker = h("input", { type: "file", multiple: true, hidden: true, tabindex: "-1", onchange: () => this.attach([...this.picker.files]) });
    const attachLabel = t("attach", { kilobytes: number(MOST_BYTES / 1000) });
    const attach = h("button", { class: "icon-button attach", type: "button", title: attachLabel, "aria-label": attachLabel, onclick: () => this.pickFiles() }, icon("clip"));
    this.field = h("textarea", { rows: "1", placeholder: t("composer.placeholder"), "aria-label": t("composer.placeholder"), oninput: () => this.fit() });
    this.field.addEventListener("keydown", (event) => {
      // While an input method is open, Enter accepts its candidate.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    this.button = h("button", { class: "send", type: "submit" });
    this.element = h("form", {
      class: "composer",
      onsubmit: (event) => {
        event.preventDefault();
        if (this.session.isRunning()) this.session.stop();
        else this.send();
      },
    }, this.shelf, attach, this.picker, this.field, this.button);
    this.element.addEventListener("paste", (event) => this.#take(event, event.clipboardData?.files));
    this.element.addEventListener("dragover", (event) => event.preventDefault());
    this.element.addEventListener("drop", (event) => this.#take(event, event.dataTransfer?.files));
    this.draw();
  }

  draw() {
    const running = this.session.isRunning();
    const label = t(running ? "stop" : "send");
    this.button.replaceChildren(icon(running ? "stop" : "send"));
    this.button.classList.toggle("running", running);
    this.button.title = label;
    this.button.setAttribute("aria-label", label);
  }

  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(TALLEST, this.field.scrollHeight)}px`;
  }

  write(text) {
    this.field.value = text;
    this.fit();
    this.field.focus();
  }

  #take(event, files) {
    if (!files?.length) return;
    event.preventDefault();
    this.attach([...files]);
  }

  pickFiles() {
    this.picker.value = ""; // the same file may be taken again
    this.picker.click();
  }

  /** Reads files; says why where one cannot go along. */
  async attach(files) {
    for (const file of files) {
      try {
        const read = await readAttachment(file);
        if (this.#files.length === MOST_FILES) throw new Error(t("attach.many", { count: number(MOST_FILES) }));
        this.#files.push(read);
      } catch (error) {
        say(error.message);
      }
    }
    this.#drawFiles();
    this.field.focus();
  }

  #drawFiles() {
    this.shelf.hidden = !this.#files.length;
    fill(this.shelf, chips(this.#files, (file) => {
      this.#files = this.#files.filter((other) => other !== file);
      this.#drawFiles();
      this.field.focus();
    }));
  }

  send() {
    const text = this.field.value;
    const files = this.#files;
    if (!(text.trim() || files.length) || this.session.isRunning()) return;
    this.#files = [];
    this.#drawFiles();
    this.field.value = "";
    this.fit();
    this.session.send(text, files);
  }
}
