// One message: its text, what can be done with it, and how its answer went.

import { fill, h } from "../dom.js";
import { icon } from "../icons.js";
import { copyText } from "../overlay.js";
import { number, percent, seconds, t } from "../words.js";
import { siblings } from "./conversation.js";
import { openInspector } from "./inspector.js";
import { chips } from "./attachments.js";
import { rendered } from "./markdown.js";
import { tokenView } from "./token_view.js";
import { callCards } from "./tool_calls.js";

function action(name, label, onclick, more = {}) {
  return h("button", { class: "icon-button small", type: "button", title: label, "aria-label": label, onclick, ...more }, icon(name));
}

export class MessageView {
  #editing = false;
  #asTokens = false;
  #thinkingOpen = null; // null: open while it thinks, closed after

  constructor(session, pane, node) {
    Object.assign(this, { session, pane, node });
    this.body = h("div", { class: "message-body" });
    this.foot = h("div", { class: "message-foot" });
    this.element = h("article", { class: `message ${node.role}`, data: { id: node.id }, "aria-label": t(`role.${node.role}`) }, this.body, this.foot);
    this.draw();
  }

  draw() {
    const { node } = this;
    if (this.#editing) return;
    const streaming = node.status === "streaming";
    this.element.classList.toggle("streaming", streaming);
    this.element.setAttribute("aria-busy", streaming);
    if (node.role === "user") fill(this.body, node.files?.length > 0 && chips(node.files), node.content && h("div", { class: "said" }, node.content));
    else this.#drawAnswer();
    fill(this.foot, this.#branches(), this.#actions(), this.#figures());
  }

  #drawAnswer() {
    // Drawing anew would take the focus out of a result that is being typed.
    if (this.body.querySelector(".call-give textarea:focus") && !this.session.isRunning(this.node.id)) return;
    fill(this.body, this.#thinking(), this.#content(), this.#calls(), this.#notice());
  }

  #calls() {
    const { node, session, pane } = this;
    if (!node.calls?.length) return null;
    const give = (call, text) => {
      document.activeElement.blur();
      session.giveResult(pane, node, call, text);
    };
    return callCards(node.calls, node.status === "streaming" ? null : give);
  }

  #thinking() {
    const { node } = this;
    if (!node.reasoning || this.#asTokens) return null;
    const thinking = node.status === "streaming" && !node.content;
    const details = h("details", { class: "thinking", open: this.#thinkingOpen ?? thinking },
      h("summary", {}, icon("thought"), h("span", {}, t(thinking ? "thinking.now" : "thinking.done"))),
      h("div", { class: "prose quiet" }, rendered(node.reasoning)));
    details.querySelector("summary").addEventListener("click", () => (this.#thinkingOpen = !details.open));
    return details;
  }

  #content() {
    const { node } = this;
    if (this.#asTokens) return tokenView(node.tokens ?? []);
    if (!node.content && node.calls?.length) return null;
    if (!node.content && node.status === "streaming" && !node.reasoning) {
      return h("div", { class: "waiting", role: "status" }, h("span", { class: "hidden-text" }, t("answer.waiting")), h("i"), h("i"), h("i"));
    }
    return h("div", { class: "prose" }, rendered(node.content));
  }

  #notice() {
    const { node } = this;
    const retry = () => h("button", { class: "button small", type: "button", onclick: () => this.session.regenerate(this.pane, node) }, icon("again"), t("retry"));
    const resume = () => h("button", { class: "button small", type: "button", onclick: () => this.session.resume(this.pane, node) }, icon("play"), t("continue"));
    const has = Boolean(node.content || node.reasoning);
    if (node.status === "lost") {
      return h("div", { class: "notice", role: "alert" }, h("span", { class: "grow" }, t(has ? "answer.lost" : "answer.unreached")), has && resume(), retry());
    }
    if (node.status === "refused") {
      const where = node.error.parameter ? ` (${node.error.parameter})` : "";
      return h("div", { class: "notice error", role: "alert" }, h("span", { class: "grow" }, node.error.message + where), retry());
    }
    if (node.status === "done" && node.finish === "length") {
      return h("div", { class: "notice" }, h("span", { class: "grow" }, t("answer.length")), resume());
    }
    if (node.status === "stopped") return h("div", { class: "aside" }, t("answer.stopped"));
    return null;
  }

  #branches() {
    const all = siblings(this.session.current, this.node);
    if (all.length < 2) return null;
    const place = all.indexOf(this.node);
    const go = (step) => () => this.session.show(this.pane, all[place + step]);
    return h("span", { class: "branches", role: "group", "aria-label": t("branches") },
      action("left", t("branch.previous"), go(-1), { disabled: place === 0 }),
      h("span", { class: "number" }, `${place + 1}/${all.length}`),
      action("right", t("branch.next"), go(1), { disabled: place === all.length - 1 }));
  }

  #actions() {
    const { node, session, pane } = this;
    if (node.status === "streaming") return null;
    const answer = node.role === "assistant";
    return h("span", { class: "actions" },
      action("copy", t("copy"), () => copyText(node.content)),
      action("edit", t("edit"), () => this.edit()),
      answer && action("again", t("regenerate"), () => session.regenerate(pane, node)),
      answer && !node.calls?.length && (node.content || node.reasoning) && action("play", t("continue"), () => session.resume(pane, node)),
      answer && node.tokens?.length > 0 && action("tokens", t("tokens.show"), () => this.toggleTokens(), { "aria-pressed": this.#asTokens }),
      answer && action("code", t("inspect"), () => openInspector(session, node)));
  }

  #figures() {
    const { node } = this;
    const { timing, usage } = node;
    if (node.role !== "assistant" || !timing) return null;
    const speed = timing.seconds > 0 && timing.tokens > 1 ? (timing.tokens - 1) / timing.seconds : null;
    const cached = usage?.prompt_tokens_details?.cached_tokens;
    const figure = (text, title) => h("span", { title }, text);
    return h("span", { class: "figures number" },
      speed !== null && figure(t("figure.speed", { value: number(speed, speed < 100 ? 1 : 0) }), t("figure.speed.title")),
      timing.first !== null && figure(t("figure.first", { value: seconds(timing.first) }), t("figure.first.title")),
      figure(t("figure.tokens", { value: number(timing.tokens) }), t("figure.tokens.title")),
      usage && cached !== undefined && figure(t("figure.cached", { value: percent(cached / Math.max(1, usage.prompt_tokens)) }), t("figure.cached.title", { cached: number(cached), prompt: number(usage.prompt_tokens) })),
      node.model && this.session.current.panes.length === 1 && figure(node.model, t("model")));
  }

  toggleTokens() {
    this.#asTokens = !this.#asTokens;
    this.draw();
  }

  edit() {
    this.#editing = true;
    const field = h("textarea", { class: "edit-field", value: this.node.content, "aria-label": t("edit"), rows: Math.min(16, this.node.content.split("\n").length + 1) });
    const end = () => {
      this.#editing = false;
      this.draw();
    };
    const save = () => {
      end();
      if ((field.value.trim() || this.node.files?.length) && field.value !== this.node.content) this.session.edit(this.pane, this.node, field.value);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") end();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
      if (event.key === "Escape") event.stopPropagation();
    });
    fill(this.body, field, h("div", { class: "dialog-foot" },
      h("button", { class: "button small", type: "button", onclick: end }, t("cancel")),
      h("button", { class: "button small primary", type: "button", onclick: save }, t(this.node.role === "user" ? "edit.send" : "edit.save"))));
    fill(this.foot);
    field.focus();
  }
}
