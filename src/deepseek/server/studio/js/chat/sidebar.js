// The list of conversations, newest first, by day.

import { fill, h } from "../dom.js";
import { icon } from "../icons.js";
import { openDialog, say } from "../overlay.js";
import { dateLabel, t } from "../words.js";
import { download, exportText, importText, pickFiles } from "./transfer.js";

export class Sidebar {
  constructor(session, { close }) {
    this.session = session;
    this.close = close;
    this.search = h("input", { type: "search", placeholder: t("search"), "aria-label": t("search"), oninput: () => this.draw() });
    this.list = h("nav", { class: "conversation-list", "aria-label": t("conversations") });
    this.element = h("aside", { class: "sidebar", "aria-label": t("conversations") },
      h("div", { class: "sidebar-head" },
        h("button", { class: "button wide", type: "button", onclick: () => this.#open(null) }, icon("plus"), t("new")), this.search),
      this.list,
      h("div", { class: "sidebar-foot" },
        h("button", { class: "icon-button", type: "button", onclick: () => this.#export() }, icon("download"), t("export")),
        h("button", { class: "icon-button", type: "button", onclick: () => this.#import() }, icon("upload"), t("import"))));
    this.draw();
  }

  draw() {
    const wanted = this.search.value.trim().toLowerCase();
    const matches = (conversation) => !wanted || conversation.title.toLowerCase().includes(wanted)
      || Object.values(conversation.nodes).some((node) => node.content.toLowerCase().includes(wanted));
    const found = this.session.conversations.filter(matches).sort((a, b) => b.updated - a.updated);
    fill(this.list);
    let day = null;
    for (const conversation of found) {
      const label = dateLabel(conversation.updated);
      if (label !== day) this.list.append(h("h2", {}, label));
      day = label;
      this.list.append(this.#entry(conversation));
    }
    if (!found.length) this.list.append(h("p", { class: "weak" }, t(wanted ? "search.none" : "conversations.none")));
    if (this.session.lasting === false) this.list.append(h("p", { class: "weak" }, t("storage.none")));
  }

  #entry(conversation) {
    const open = conversation === this.session.current;
    const title = conversation.title || t("untitled");
    return h("div", { class: `conversation${open ? " open" : ""}` },
      h("button", { class: "conversation-title", type: "button", "aria-current": open ? "true" : null, onclick: () => this.#open(conversation) }, title),
      h("button", { class: "icon-button small", type: "button", title: t("rename"), "aria-label": `${t("rename")}: ${title}`, onclick: () => this.#rename(conversation) }, icon("edit")),
      h("button", { class: "icon-button small", type: "button", title: t("delete"), "aria-label": `${t("delete")}: ${title}`, onclick: () => this.#remove(conversation) }, icon("trash")));
  }

  #open(conversation) {
    if (conversation) this.session.open(conversation);
    else this.session.startNew();
    this.close();
  }

  #rename(conversation) {
    openDialog(t("rename"), (close) => {
      const field = h("input", { type: "text", value: conversation.title, "aria-label": t("rename") });
      return h("form", {
        onsubmit: (event) => {
          event.preventDefault();
          this.session.rename(conversation, field.value.trim());
          close();
        },
      }, field, h("div", { class: "dialog-foot spaced" }, h("button", { class: "button primary", type: "submit" }, t("save"))));
    }, { narrow: true });
  }

  #remove(conversation) {
    openDialog(t("delete.title"), (close) => [
      h("p", {}, t("delete.text", { title: conversation.title || t("untitled") })),
      h("div", { class: "dialog-foot" },
        h("button", { class: "button", type: "button", onclick: close }, t("cancel")),
        h("button", { class: "button danger", type: "button", onclick: () => { this.session.remove(conversation); close(); } }, icon("trash"), t("delete"))),
    ], { narrow: true });
  }

  #export() {
    if (!this.session.conversations.length) return say(t("conversations.none"));
    download(`deepseek-studio-${new Date().toISOString().slice(0, 10)}.json`, exportText(this.session.conversations));
  }

  async #import() {
    for (const text of await pickFiles()) {
      try {
        const added = importText(text);
        this.session.add(added);
        say(t("import.done", { count: added.length }));
      } catch (error) {
        say(t("import.failed", { reason: error.message }));
      }
    }
  }
}
