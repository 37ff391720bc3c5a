// The experts page: what a mixture-of-experts model does while it writes.

import { fill, h } from "../dom.js";
import { knownModels, modelNamed, onModels } from "../api/models.js";
import { expertShape } from "../api/routing.js";
import { preference } from "../preferences.js";
import { t } from "../words.js";
import { denseNotice } from "./dense_notice.js";
import { ExpertsBoard } from "./board.js";

let chosenModel = null; // kept while other pages are shown
let board = null;

export class ExpertsPage {
  constructor() {
    this.element = h("main", { class: "page board", id: "main" });
    this.end = onModels(() => this.draw());
    this.draw();
  }

  leave() {
    this.end();
    board?.leave();
  }

  themeChanged() {
    board?.themeChanged();
  }

  shortcut(name) {
    if (name === "write") this.element.querySelector("textarea")?.focus();
    if (name === "escape") board?.stop();
    return name === "write" || name === "escape";
  }

  draw() {
    const withExperts = knownModels().filter(expertShape);
    const model = modelNamed(chosenModel ?? preference("generation")?.model);
    const shown = expertShape(model) ? model : withExperts[0] && !chosenModel ? withExperts[0] : model;
    const shape = expertShape(shown);
    const key = JSON.stringify([shown?.id, shape]);
    if (!shape) board = null;
    else if (board?.key !== key || board.language !== document.documentElement.lang) {
      board = new ExpertsBoard(shown, shape);
      Object.assign(board, { key, language: document.documentElement.lang });
    }
    board?.enter();
    fill(this.element, h("div", { class: "board-inner" }, this.#head(shown, shape), shape ? board.element : denseNotice(shown)));
  }

  #head(model, shape) {
    const picker = h("select", {
      "aria-label": t("model"), value: model?.id ?? "",
      onchange: () => {
        chosenModel = picker.value;
        this.draw();
      },
    }, knownModels().map(({ id }) => h("option", { value: id }, id)));
    const about = shape ? t("experts.about", { layers: shape.layers.length, experts: shape.experts, active: shape.perToken, shared: shape.shared }) : "";
    return h("div", { class: "board-head" }, h("h1", {}, t("page.experts")), h("span", { class: "weak" }, about),
      knownModels().length > 1 && h("div", { class: "head-model" }, picker));
  }
}
