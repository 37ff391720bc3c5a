// The messages of one pane, kept in step with its path through the tree.

import { fill, h, paced } from "../dom.js";
import { knownModels, modelNamed } from "../api/models.js";
import { expertShape } from "../api/routing.js";
import { number, t } from "../words.js";
import { pathTo } from "./conversation.js";
import { MessageView } from "./message.js";

const REDRAW_GAP = 80; // milliseconds: Markdown is read anew each time
const NEAR_END = 80; // pixels: who is so near the end wants to see what comes

export class Thread {
  #views = new Map();
  #grown = new Set();

  constructor(session, pane, { compared, pickSuggestion }) {
    Object.assign(this, { session, pane, pickSuggestion });
    this.list = h("div", { class: "thread-list" });
    this.element = h("section", { class: "thread", tabindex: "-1", "aria-label": t("thread") }, this.list);
    this.compared = compared;
    this.drawGrown = paced(() => {
      const follow = this.#atEnd();
      for (const id of this.#grown) this.#views.get(id)?.draw();
      this.#grown.clear();
      if (follow) this.toEnd();
    }, REDRAW_GAP);
    this.draw();
  }

  draw() {
    const follow = this.#atEnd();
    const path = pathTo(this.session.current, this.pane.leaf);
    const views = new Map(path.map((node) => [node.id, this.#views.get(node.id) ?? new MessageView(this.session, this.pane, node)]));
    for (const view of views.values()) view.draw();
    this.#views = views;
    const elements = [...views.values()].map((view) => view.element);
    // Only what changed is touched: replacing all would lose the focus, the selection and a field being edited.
    if (!elements.length) fill(this.list, this.#welcome());
    else if (elements.length !== this.list.children.length || elements.some((element, place) => element !== this.list.children[place])) {
      this.list.replaceChildren(...elements);
    }
    if (follow) this.toEnd();
  }

  /** Message `id` has grown. */
  update(id) {
    this.#grown.add(id);
    this.drawGrown();
  }

  lastAnswer() {
    return [...this.#views.values()].findLast((view) => view.node.role === "assistant") ?? null;
  }

  lastQuestion() {
    return [...this.#views.values()].findLast((view) => view.node.role === "user") ?? null;
  }

  toEnd() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < NEAR_END;
  }

  #welcome() {
    const model = modelNamed(this.pane.settings.model);
    const shape = expertShape(model);
    const facts = model && [
      model.max_model_len && t("model.context", { value: number(model.max_model_len) }),
      shape ? t("model.moe", { experts: number(shape.experts), active: number(shape.perToken), layers: number(shape.layers.length) }) : t("model.dense"),
    ].filter(Boolean).join(" · ");
    return h("div", { class: "welcome" },
      h("h1", {}, knownModels().length ? t("welcome.title") : t("welcome.nomodel")),
      model && h("p", { class: "weak" }, h("strong", {}, model.id), h("br"), facts),
      !this.compared && knownModels().length > 0 && h("div", { class: "suggestions" }, [1, 2, 3, 4].map((place) =>
        h("button", { type: "button", onclick: () => this.pickSuggestion(t(`suggestion.${place}.text`)) },
          h("strong", {}, t(`suggestion.${place}.title`)), h("span", {}, t(`suggestion.${place}.text`))))));
  }
}
