// Which experts fire for which kind of text: samples of each kind are read by the model, and their experts compared.

import { fill, h } from "../dom.js";
import { icon } from "../icons.js";
import { request } from "../api/server.js";
import { promptRouting } from "../api/routing.js";
import { HeatGrid } from "../charts/heat_grid.js";
import { number, percent, t } from "../words.js";
import { ExpertCounts, likeness, particular } from "./statistics.js";

const MOST_PARTICULAR = 3;

// Long enough that a layer's histogram has a shape, short enough to be read in a second or two.
const TEXTS = {
  code: `def merge(left, right):\n    out = []\n    while left and right:\n        out.append(left.pop(0) if left[0] <= right[0] else right.pop(0))\n    return out + left + right\n\nfor (int i = 0; i < n; i++) { total += values[i] * weights[i]; }\nSELECT name, COUNT(*) FROM orders WHERE paid = 1 GROUP BY name;\nimport numpy as np\nx = np.linspace(0, 1, 100)\nprint(x.mean(), x.std())\n`,
  prose: "The harbour was quiet in the early morning. A few boats rocked against the wooden pier, and the smell of salt and tar hung in the cool air. She walked slowly past the closed market stalls, thinking of the letter she had read the night before, and wondered whether her brother would really come home before the winter.",
  chinese: "清晨的港口很安静。几条小船轻轻地靠着木头码头，空气里有盐和柏油的味道。她慢慢走过还没有开门的市场，想着昨天晚上读到的那封信，不知道哥哥是不是真的会在冬天以前回家。远处传来了钟声，一天就这样开始了。",
  maths: "Let f(x) = x^2 - 3x + 2. Then f(x) = 0 if and only if (x - 1)(x - 2) = 0, so x = 1 or x = 2. The derivative is f'(x) = 2x - 3, which vanishes at x = 3/2. Suppose that n is odd; then n = 2k + 1 and n^2 = 4k^2 + 4k + 1 = 2(2k^2 + 2k) + 1, hence n^2 is odd. Therefore the integral of f from 0 to 1 equals 1/3 - 3/2 + 2 = 5/6.",
  numbers: "3.14159 2.71828 1.41421 0.57721 42 1024 65536 2026-11-24 19:45 +1 555 0199 98.6 3,600 86,400 299792458 6.022e23 1 1 2 3 5 8 13 21 34 55 89 144 233 377 610 12.50 7.25 100.00 0.01 255.255.255.0 10.0.0.1 17 19 23 29 31 37 41 43 47",
};

async function countsOf(model, shape, text) {
  const body = { model, prompt: text, max_tokens: 1, routed_experts: "all" };
  const answer = await (await request("v1/completions", { method: "POST", body })).json();
  const counts = new ExpertCounts(shape);
  for (const layers of promptRouting(answer.choices[0])) if (layers) counts.add(layers);
  return counts;
}

export class TextKinds {
  #results = null;

  constructor({ model, shape, layerRow, chooseCell }) {
    Object.assign(this, { model, shape, layerRow, chooseCell });
    this.button = h("button", { class: "button small", type: "button", onclick: () => this.run() }, icon("play"), t("kinds.run"));
    this.body = h("div", { class: "grid-gap" });
    this.element = h("section", { class: "panel", id: "kinds" },
      h("div", { class: "panel-head" }, h("h2", {}, t("kinds.title")), h("div", { class: "controls" }, this.button)),
      h("p", { class: "explain" }, t("kinds.explain")), this.body);
  }

  async run() {
    this.button.disabled = true;
    const names = Object.keys(TEXTS);
    try {
      const counts = await Promise.all(names.map((name) => countsOf(this.model, this.shape, TEXTS[name])));
      this.#results = { names, counts };
      this.draw();
    } catch (error) {
      fill(this.body, h("div", { class: "notice error", role: "alert" }, error.message));
    }
    this.button.disabled = false;
  }

  draw() {
    if (!this.#results) return;
    const { names, counts } = this.#results;
    const row = this.layerRow();
    const { experts } = this.shape;
    const shares = counts.map((one) => one.shares().subarray(row * experts, (row + 1) * experts));
    this.grid = new HeatGrid({
      rows: names.length, columns: experts, rowName: (kind) => t(`kind.${names[kind]}`), columnName: String, labelWidth: 76, tallest: 24,
      label: t("kinds.grid", { layer: this.shape.layers[row] }),
      describe: (kind, expert) => [t(`kind.${names[kind]}`), t("cell.expert", { layer: this.shape.layers[row], expert }), percent(shares[kind][expert], 1)],
      pick: (kind, expert) => this.chooseCell(row, expert),
    });
    this.grid.show(Float64Array.from(shares.flatMap((share) => [...share])));
    fill(this.body, h("div", { class: "weak" }, t("kinds.grid", { layer: this.shape.layers[row] })), this.grid.element,
      h("div", { class: "row-2 top-gap" }, this.#likenessTable(names, counts), this.#particularTable(names, counts)));
  }

  themeChanged() {
    this.grid?.themeChanged();
  }

  #likenessTable(names, counts) {
    const grid = new HeatGrid({
      rows: names.length, columns: names.length, tallest: 30, widest: 76, labelWidth: 76, label: t("kinds.likeness"),
      rowName: (row) => t(`kind.${names[row]}`), columnName: (column) => t(`kind.${names[column]}`),
      describe: (row, column) => [`${t(`kind.${names[row]}`)} – ${t(`kind.${names[column]}`)}`, number(likeness(counts[row], counts[column]), 2)],
    });
    grid.show(Float64Array.from(counts.flatMap((one) => counts.map((other) => likeness(one, other)))), 1);
    return h("div", {}, h("h3", { class: "small-title" }, t("kinds.likeness")), grid.element);
  }

  #particularTable(names, counts) {
    const chip = ({ row, expert, share, others }) => h("button", {
      class: "chip", type: "button", onclick: () => this.chooseCell(row, expert),
      title: t("kinds.chip", { share: percent(share, 1), others: percent(others, 1) }),
    }, `${this.shape.layers[row]}/${expert}`);
    return h("div", {}, h("h3", { class: "small-title" }, t("kinds.particular")),
      h("table", { class: "figures-table" }, names.map((name, place) => h("tr", {},
        h("td", {}, t(`kind.${name}`), h("span", { class: "weak" }, ` ${t("kinds.tokens", { count: number(counts[place].tokens) })}`)),
        h("td", {}, h("span", { class: "samples end" }, particular(counts, place, MOST_PARTICULAR).map(chip)))))));
  }
}
