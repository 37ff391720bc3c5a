// All panels about one model's experts, and the run that feeds them.

import { fill, h, paced } from "../dom.js";
import { icon } from "../icons.js";
import { HeatGrid } from "../charts/heat_grid.js";
import { number, percent, t } from "../words.js";
import { BalanceTable } from "./balance_table.js";
import { ExpertRun } from "./run.js";
import { coactivation } from "./statistics.js";
import { TextKinds } from "./text_kinds.js";
import { TokenStrip } from "./token_strip.js";

const SAMPLES = ["prose", "code", "chinese", "maths"];
const SLOW_GAP = 250; // milliseconds between updates of the panels that cost more than a glance
const LENGTHS = [32, 64, 128, 256];

export class ExpertsBoard {
  #row = 0;
  #cell = null;
  #measure = "times";

  constructor(model, shape) {
    Object.assign(this, { model, shape, run: new ExpertRun(shape) });
    this.#makeRunBar();
    this.#makeHeat();
    this.#makeStrip();
    this.balance = new BalanceTable({ shape, chooseLayer: (row) => this.chooseLayer(row) });
    this.#makePairs();
    this.kinds = new TextKinds({ model: model.id, shape, layerRow: () => this.#row, chooseCell: (row, expert) => this.chooseCell(row, expert) });
    this.element = h("div", { class: "board-panels" }, this.runBar, this.notice, this.heatPanel, this.stripPanel,
      h("div", { class: "row-2" },
        h("section", { class: "panel", id: "balance" }, h("div", { class: "panel-head" }, h("h2", {}, t("balance.title"))), h("p", { class: "explain" }, t("balance.explain")), this.balance.element),
        this.pairsPanel),
      this.kinds.element);
    this.slow = paced(() => this.#drawSlow(), SLOW_GAP);
    this.balance.choose(0);
  }

  enter() {
    requestAnimationFrame(() => this.#drawSlow());
  }

  leave() {}

  stop() {
    this.run.stop();
  }

  themeChanged() {
    this.heat.themeChanged();
    this.pairs.themeChanged();
    this.kinds.themeChanged();
    this.#drawSlow();
  }

  start() {
    if (this.run.running) return this.run.stop();
    this.run = new ExpertRun(this.shape);
    this.strip.reset(this.run);
    this.chooseCell(null, null);
    const done = this.run.start(this.model.id, this.prompt.value, Number(this.length.value));
    this.run.events.on("piece", (came) => this.#piece(came));
    this.#drawButton();
    return done.then(() => {
      this.#drawButton();
      this.#drawHeat();
      this.#drawSlow();
      fill(this.notice, this.run.error?.message ?? "");
      this.notice.hidden = !this.run.error;
    });
  }

  chooseLayer(row) {
    this.#row = row;
    for (const select of this.layerSelects) select.value = String(row);
    this.strip.recolour();
    this.balance.choose(row);
    this.kinds.draw();
    this.#drawSlow();
  }

  chooseCell(row, expert) {
    const same = this.#cell && this.#cell[0] === row && this.#cell[1] === expert;
    this.#cell = row === null || same ? null : [row, expert];
    if (this.#cell && row !== this.#row) this.chooseLayer(row);
    this.heat.choose(...(this.#cell ?? [null, null]));
    if (this.run.tokens.length) this.strip.mark(...(this.#cell ?? [null, null]));
    this.marked.textContent = this.#cell ? t("strip.marked", { layer: this.shape.layers[row], expert }) : "";
  }

  #piece(came) {
    this.strip.grow();
    if (came.length) this.heat.flash(came.at(-1).flatMap(({ ids }, row) => ids.map((expert) => [row, expert])));
    this.#drawHeat();
    this.slow();
  }

  #drawHeat() {
    this.heat.show(this.run.counts.shares(this.#measure));
    this.counted.textContent = t("heat.counted", { tokens: number(this.run.counts.tokens) });
  }

  #drawSlow() {
    this.balance.show(this.run.counts);
    this.pairs.show(coactivation(this.run.routed(), this.#row, this.shape.experts));
  }

  #drawButton() {
    const { running } = this.run;
    fill(this.button, icon(running ? "stop" : "play"), t(running ? "stop" : "experts.run"));
  }

  #makeRunBar() {
    this.prompt = h("textarea", { rows: "2", value: t("sample.prose"), "aria-label": t("experts.prompt") });
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.start();
    });
    this.length = h("select", { "aria-label": t("setting.max_tokens"), value: "64" }, LENGTHS.map((count) => h("option", { value: count }, t("experts.length", { count }))));
    this.button = h("button", { class: "button primary", type: "button", onclick: () => this.start() });
    this.notice = h("div", { class: "notice error", role: "alert", hidden: true });
    this.runBar = h("section", { class: "panel", id: "run" },
      h("div", { class: "run-bar" }, this.prompt, h("div", { class: "side" }, this.button, this.length)),
      h("div", { class: "samples" }, SAMPLES.map((name) => h("button", { class: "chip", type: "button", onclick: () => (this.prompt.value = t(`sample.${name}`)) }, t(`kind.${name}`)))));
    this.#drawButton();
  }

  #makeHeat() {
    const { shape } = this;
    this.counted = h("span", {}, t("heat.counted", { tokens: "0" }));
    this.heat = new HeatGrid({
      rows: shape.layers.length, columns: shape.experts, rowName: (row) => String(shape.layers[row]), columnName: String, label: t("heat.label"),
      describe: (row, expert) => [
        t("cell.expert", { layer: shape.layers[row], expert }),
        t("cell.times", { count: number(this.run.counts.times[row * shape.experts + expert]), share: percent(this.run.counts.shares()[row * shape.experts + expert], 1) }),
        t("cell.weight", { value: number(this.run.counts.weight[row * shape.experts + expert], 2) }),
      ],
      pick: (row, expert) => this.chooseCell(row, expert),
    });
    const measures = h("div", { class: "segments", role: "group", "aria-label": t("heat.measure") }, ["times", "weight"].map((name) =>
      h("button", { type: "button", "aria-pressed": name === this.#measure, onclick: (event) => this.#setMeasure(name, event.currentTarget) }, t(`heat.${name}`))));
    this.heatPanel = h("section", { class: "panel", id: "heat" },
      h("div", { class: "panel-head" }, h("h2", {}, t("heat.title")), h("div", { class: "controls" }, measures)),
      h("p", { class: "explain" }, t("heat.explain")), this.heat.element,
      h("div", { class: "legend" }, this.counted, h("span", {}, t("heat.less")), h("span", { class: "scale" }), h("span", {}, t("heat.more")), h("span", { class: "key", style: { "--swatch": "var(--flash)" } }, t("heat.now"))));
  }

  #setMeasure(name, button) {
    this.#measure = name;
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", other === button);
    this.#drawHeat();
  }

  #layerSelect() {
    const select = h("select", { "aria-label": t("layer"), value: String(this.#row), onchange: () => this.chooseLayer(Number(select.value)) },
      this.shape.layers.map((layer, row) => h("option", { value: row }, t("layer.name", { layer }))));
    (this.layerSelects ??= []).push(select);
    return select;
  }

  #makeStrip() {
    this.strip = new TokenStrip({
      shape: this.shape, layerRow: () => this.#row,
      hover: (layers) => layers && this.heat.flash(layers.flatMap(({ ids }, row) => ids.map((expert) => [row, expert]))),
    });
    this.strip.run = this.run;
    this.marked = h("span", { class: "weak" });
    this.stripPanel = h("section", { class: "panel", id: "strip" },
      h("div", { class: "panel-head" }, h("h2", {}, t("strip.title")), h("div", { class: "controls" }, this.marked, this.#layerSelect())),
      h("p", { class: "explain" }, t("strip.explain")), this.strip.element);
  }

  #makePairs() {
    const { shape } = this;
    this.pairs = new HeatGrid({
      rows: shape.experts, columns: shape.experts, rowName: String, columnName: String, square: true, label: t("pairs.title"),
      describe: (one, other) => [t("pairs.cell", { one, other }), t("pairs.count", { count: number(this.pairs.values[one * shape.experts + other]) })],
    });
    this.pairsPanel = h("section", { class: "panel", id: "pairs" },
      h("div", { class: "panel-head" }, h("h2", {}, t("pairs.title")), h("div", { class: "controls" }, this.#layerSelect())),
      h("p", { class: "explain" }, t("pairs.explain")), this.pairs.element);
  }
}
