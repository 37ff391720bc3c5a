// The generated text, each token on the colour of the expert that weighed most for it.

import { h } from "../dom.js";
import { expertColour } from "../charts/colour_scale.js";
import { visibleText } from "../chat/token_view.js";
import { hideTip, showTip } from "../overlay.js";
import { percent, t } from "../words.js";

export class TokenStrip {
  #drawn = 0;

  /** shape: of the model. layerRow(): which layer colours. hover(layers): a token is looked at, null: none. */
  constructor({ shape, layerRow, hover }) {
    Object.assign(this, { shape, layerRow, hover });
    this.element = h("div", { class: "expert-tokens", role: "group", "aria-label": t("strip.label"), tabindex: "0" });
    this.element.addEventListener("pointerover", (event) => this.#look(event.target.closest(".expert-token")));
    this.element.addEventListener("pointerleave", () => this.#look(null));
  }

  /** Starts over with the tokens of `run`. */
  reset(run) {
    this.run = run;
    this.#drawn = 0;
    this.element.replaceChildren();
    this.grow();
  }

  /** Draws what came since. */
  grow() {
    const { tokens } = this.run;
    for (; this.#drawn < tokens.length; this.#drawn += 1) {
      const { text } = tokens[this.#drawn];
      this.element.append(h("span", { class: "expert-token", data: { place: this.#drawn } }, text.replaceAll("\n", "↵\n")));
      this.#colour(this.#drawn);
    }
    this.element.scrollTop = this.element.scrollHeight;
  }

  recolour() {
    this.run?.tokens.forEach((_, place) => this.#colour(place));
  }

  /** Fades all tokens that did not use `expert` in layer `row`; null: none faded. */
  mark(row, expert) {
    [...this.element.children].forEach((span, place) => {
      const layers = this.run.tokens[place].layers;
      span.classList.toggle("faded", row !== null && !layers?.[row].ids.includes(expert));
    });
  }

  #colour(place) {
    const { layers } = this.run.tokens[place];
    if (!layers) return;
    const { ids, weights } = layers[this.layerRow()];
    const sum = weights.reduce((a, b) => a + b, 0) || 1;
    this.element.children[place].style.background = expertColour(ids[0], Math.min(1, 0.45 + weights[0] / sum));
  }

  #look(span) {
    if (!span) {
      hideTip();
      return this.hover(null);
    }
    const { text, layers, logprob } = this.run.tokens[Number(span.dataset.place)];
    const lines = [h("strong", { class: "mono" }, visibleText(text)), logprob !== null && h("div", {}, percent(Math.exp(logprob), 1))];
    if (layers) {
      const { ids, weights } = layers[this.layerRow()];
      lines.push(h("div", { class: "weak" }, t("layer.name", { layer: this.shape.layers[this.layerRow()] })),
        ...ids.map((expert, place) => h("div", { class: "legend" },
          h("span", { class: "key", style: { "--swatch": expertColour(expert) } }, t("expert.name", { expert })), h("span", { class: "number" }, percent(weights[place], 1)))));
    } else lines.push(h("div", { class: "weak" }, t("strip.unknown")));
    showTip(span, lines);
    return this.hover(layers);
  }
}
