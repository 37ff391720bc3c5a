// Where the next message is written.

import { h } from "../dom.js";
import { icon } from "../icons.js";
import { t } from "../words.js";

const TALLEST = 240; // pixels

export class Composer {
  constructor(session) {
    this.session = session;
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
    }, this.field, this.button);
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

  send() {
    const text = this.field.value;
    if (!text.trim() || this.session.isRunning()) return;
    this.field.value = "";
    this.fit();
    this.session.send(text);
  }
}
