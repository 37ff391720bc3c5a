// How evenly each layer's experts share the work.

import { h } from "../dom.js";
import { MiniBars } from "../charts/mini_bars.js";
import { number, t } from "../words.js";
import { balance } from "./statistics.js";

export class BalanceTable {
  /** chooseLayer(row): a layer was clicked. */
  constructor({ shape, chooseLayer }) {
    this.shape = shape;
    this.bars = shape.layers.map((layer) => new MiniBars(t("layer.name", { layer })));
    const columns = ["balance.entropy", "balance.gini", "balance.maxvio"];
    this.cells = shape.layers.map(() => columns.map(() => h("td", {}, "–")));
    this.rows = shape.layers.map((layer, row) => h("tr", { onclick: () => chooseLayer(row) },
      h("td", {}, h("button", { class: "chip", type: "button" }, layer)), h("td", { class: "bars" }, this.bars[row].canvas), this.cells[row]));
    this.table = h("table", { class: "figures-table" },
      h("thead", {}, h("tr", {}, h("th", {}, t("layer")), h("th", { class: "left" }, t("balance.load")), columns.map((name) => h("th", { title: t(`${name}.hint`) }, t(name))))),
      h("tbody", {}, this.rows));
    this.element = h("div", { class: "scroll-x tall" }, this.table);
  }

  show(counts) {
    this.shape.layers.forEach((_, row) => {
      const loads = counts.row(row);
      this.bars[row].show(loads);
      const { entropy, gini, maxVio } = balance(loads);
      [entropy, gini, maxVio].forEach((value, place) => (this.cells[row][place].textContent = number(value, 2)));
    });
  }

  choose(chosen) {
    this.rows.forEach((element, row) => element.classList.toggle("chosen", row === chosen));
  }
}
