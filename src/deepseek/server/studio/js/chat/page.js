// The chat page: conversations on the left, one or two threads in the middle, settings on the right.

import { fill, h } from "../dom.js";
import { icon } from "../icons.js";
import { modelNamed, onModels } from "../api/models.js";
import { prefer, preference } from "../preferences.js";
import { t } from "../words.js";
import { Composer } from "./composer.js";
import { Session } from "./session.js";
import { modelPicker, SettingsPanel } from "./settings_panel.js";
import { Sidebar } from "./sidebar.js";
import { Thread } from "./thread.js";

const NARROW = matchMedia("(max-width: 1000px)");
const session = new Session(); // one for the life of the page: answers go on while another page is shown
const loaded = session.load();

export class ChatPage {
  #ends = [];

  constructor() {
    this.sidebar = new Sidebar(session, { close: () => NARROW.matches && this.setPanel("sidebar", false) });
    this.panel = new SettingsPanel(session, { close: () => this.setPanel("settings", false) });
    this.composer = new Composer(session);
    this.head = h("div", { class: "chat-head" });
    this.panes = h("div", { class: "panes" });
    this.shade = h("div", { class: "shade", onclick: () => this.closeDrawers() });
    this.element = h("div", { class: "page chat" }, this.sidebar.element,
      h("main", { class: "chat-main", id: "main" }, this.head, this.panes, h("div", { class: "composer-row" }, this.composer.element, h("p", { class: "composer-hint" }, t("composer.hint")))),
      this.panel.element, this.shade);
    for (const name of ["sidebar", "settings"]) this.setPanel(name, !NARROW.matches && preference(name), false);
    const { events } = session;
    this.#ends.push(
      events.on("list", () => this.sidebar.draw()),
      events.on("open", () => this.drawAll()),
      events.on("active", () => this.drawActive()),
      events.on("tree", () => this.threads.forEach((thread) => thread.draw())),
      events.on("node", (id) => this.threads.forEach((thread) => thread.update(id))),
      events.on("running", () => this.composer.draw()),
      onModels(() => this.drawAll()),
    );
    this.drawAll();
    loaded.then(() => this.composer.field.focus({ preventScroll: true }));
  }

  leave() {
    for (const end of this.#ends) end();
  }

  drawAll() {
    this.drawHead();
    this.panel.draw();
    this.sidebar.draw();
    this.composer.draw();
    const two = session.current.panes.length === 2;
    this.panes.classList.toggle("two", two);
    this.threads = session.current.panes.map((pane) => new Thread(session, pane, { compared: two, pickSuggestion: (text) => this.composer.write(text) }));
    fill(this.panes, this.threads.map((thread, place) => (two ? this.#comparedPane(thread, place) : thread.element)));
    for (const thread of this.threads) requestAnimationFrame(() => thread.toEnd());
  }

  drawActive() {
    this.panel.draw();
    this.panes.querySelectorAll(".pane").forEach((pane, place) => pane.classList.toggle("active", place === session.active));
  }

  drawHead() {
    const two = session.current.panes.length === 2;
    const toggle = (name, label, open, onclick) => h("button", { class: "icon-button", type: "button", title: label, "aria-label": label, "aria-pressed": open, onclick, data: { toggle: name } }, icon(name === "sidebar" ? "menu" : name));
    fill(this.head,
      toggle("sidebar", t("conversations"), this.isOpen("sidebar"), () => this.setPanel("sidebar")),
      h("button", { class: "icon-button", type: "button", title: t("new"), "aria-label": t("new"), onclick: () => session.startNew() }, icon("plus")),
      two ? h("strong", { class: "grow" }, t("compare")) : h("div", { class: "head-model" }, modelPicker(session, { label: false })),
      h("span", { class: "grow" }),
      toggle("columns", t("compare"), two, () => session.toggleCompare()),
      toggle("settings", t("settings"), this.isOpen("settings"), () => this.setPanel("settings")));
  }

  #comparedPane(thread, place) {
    const activate = () => {
      if (session.active === place) return;
      session.active = place;
      session.events.emit("active");
    };
    return h("div", { class: `pane${place === session.active ? " active" : ""}`, onpointerdown: activate, onfocusin: activate },
      h("div", { class: "pane-head" },
        h("span", { class: "pane-letter" }, "AB"[place]),
        h("span", { class: "grow" }, modelNamed(thread.pane.settings.model)?.id ?? t("model.none")),
        h("button", { class: "button small", type: "button", onclick: () => session.keepPane(place) }, t("compare.keep"))),
      thread.element);
  }

  isOpen(name) {
    return this.element?.classList.contains(`with-${name}`) ?? false;
  }

  setPanel(name, open = !this.isOpen(name), keep = true) {
    if (NARROW.matches && open) this.closeDrawers();
    this.element.classList.toggle(`with-${name}`, open);
    this[name === "sidebar" ? "sidebar" : "panel"].element.inert = !open;
    if (keep && !NARROW.matches) prefer(name, open);
    this.head.querySelector(`[data-toggle="${name}"]`)?.setAttribute("aria-pressed", open);
  }

  /** True when there was one to close. */
  closeDrawers() {
    if (!NARROW.matches || !(this.isOpen("sidebar") || this.isOpen("settings"))) return false;
    for (const name of ["sidebar", "settings"]) this.setPanel(name, false, false);
    return true;
  }

  /** What single keys do here; a name of a shortcut, true when it was ours. */
  shortcut(name) {
    const thread = this.threads[session.active] ?? this.threads[0];
    const answer = thread.lastAnswer();
    const idle = answer && !session.isRunning();
    const steps = {
      new: () => session.startNew(),
      write: () => this.composer.field.focus(),
      sidebar: () => this.setPanel("sidebar"),
      settings: () => this.setPanel("settings"),
      attach: () => this.composer.pickFiles(),
      compare: () => session.toggleCompare(),
      regenerate: () => idle && session.regenerate(thread.pane, answer.node),
      continue: () => idle && session.resume(thread.pane, answer.node),
      edit: () => thread.lastQuestion()?.edit(),
      tokens: () => answer?.toggleTokens(),
      previous: () => answer?.element.querySelector(".branches button:first-child")?.click(),
      next: () => answer?.element.querySelector(".branches button:last-child")?.click(),
      escape: () => (session.isRunning() ? session.stop() : this.closeDrawers()),
    };
    steps[name]?.();
    return name in steps;
  }
}
