// The load of every expert over time: all layers at one step, one layer over all steps, and how uneven each layer is.

import { fill, h } from "../dom.js";
import { Curves } from "../charts/curves.js";
import { HeatGrid } from "../charts/heat_grid.js";
import { compact, number, percent, t } from "../words.js";
import { spread } from "./load.js";

const COLUMNS = 120; // of a picture over time
const STRONGEST = 2; // means that the strongest colour stands for: an even load lies in the middle of the scale

export class Loads {
  #frame = null; // the step that is looked at; null: the newest
  #row = 0;
  #shape = "";

  constructor() {
    this.element = h("div", { class: "board-panels" });
  }

  themeChanged() {
    for (const grid of this.grids ?? []) grid.themeChanged();
  }

  show(record) {
    this.frames = record.frames;
    const first = this.frames[0];
    this.element.hidden = !first;
    if (!first) return;
    const shape = JSON.stringify([first.layers.map(({ layer }) => layer), first.layers[0].load.length]);
    if (shape !== this.#shape) this.#make(first, record);
    this.#shape = shape;
    this.#draw();
  }

  #make(first, record) {
    const layers = first.layers.map(({ layer }) => layer);
    const experts = first.layers[0].load.length;
    Object.assign(this, { layers, experts });
    this.#row = 0;
    this.#frame = null;
    this.slider = h("input", { type: "range", min: "0", "aria-label": t("training.scrub"), oninput: () => this.#scrub() });
    this.where = h("span", { class: "number scrub-place" });
    this.layer = h("select", { "aria-label": t("layer"), onchange: () => this.#choose(Number(this.layer.value)) },
      layers.map((layer, row) => h("option", { value: row }, t("layer.name", { layer }))));
    this.now = new HeatGrid({
      rows: layers.length, columns: experts, rowName: (row) => String(layers[row]), columnName: String, label: t("training.load.label"),
      describe: (row, expert) => this.#told(this.#shown(), row, expert), pick: (row) => this.#choose(row),
    });
    this.time = new HeatGrid({
      rows: experts, columns: 1, rowName: String, columnName: (column) => this.#stepName(column), label: t("training.load.time"), narrowest: 2, columnRoom: 56, seams: false,
      describe: (expert, column) => this.#told(this.columns[column].item, this.#row, expert), pick: (_, column) => this.#go(column),
    });
    this.violation = new HeatGrid({
      rows: layers.length, columns: 1, rowName: (row) => String(layers[row]), columnName: (column) => this.#stepName(column), label: t("training.maxvio"), narrowest: 2, columnRoom: 56, seams: false,
      describe: (row, column) => this.#toldViolation(this.columns[column].item, row), pick: (row, column) => { this.#choose(row); this.#go(column); },
    });
    const at = (step) => t("training.step", { step: number(step) });
    this.uneven = new Curves({ label: (value) => number(value, 2), at, fromZero: true, title: t("training.maxvio"), height: 150 });
    this.dropped = new Curves({ label: (value) => number(value), at, fromZero: true, title: t("training.dropped"), height: 150 });
    this.grids = [this.now, this.time, this.violation];
    this.unevenLegend = h("div", { class: "legend" });
    this.droppedPanel = h("section", { class: "panel", id: "dropped" }, h("div", { class: "panel-head" }, h("h2", {}, t("training.dropped"))), h("p", { class: "explain" }, t("training.dropped.text")), this.dropped.element);
    const scale = h("div", { class: "legend" }, h("span", {}, t("training.load.none")), h("span", { class: "scale" }), h("span", {}, t("training.load.twice")), h("span", {}, t("training.load.every", { every: number(record.loadsEvery) })));
    fill(this.element,
      h("section", { class: "panel", id: "load" },
        h("div", { class: "panel-head" }, h("h2", {}, t("training.load")), this.where),
        h("p", { class: "explain" }, t("training.load.text")), this.slider, this.now.element, scale),
      h("section", { class: "panel", id: "load-time" },
        h("div", { class: "panel-head" }, h("h2", {}, t("training.load.time")), h("div", { class: "controls" }, this.layer)),
        h("p", { class: "explain" }, t("training.load.time.text")), this.time.element),
      h("section", { class: "panel", id: "maxvio" },
        h("div", { class: "panel-head" }, h("h2", {}, t("training.maxvio"))),
        h("p", { class: "explain" }, t("training.maxvio.text")), this.violation.element, this.uneven.element, this.unevenLegend),
      this.droppedPanel);
  }

  #draw() {
    const { frames, layers, experts } = this;
    const frame = this.#shown();
    const place = frames.indexOf(frame);
    this.columns = spread(frames, COLUMNS);
    this.slider.max = String(frames.length - 1);
    this.slider.value = String(place);
    const tokens = frame.tokens === null ? "" : ` · ${t("training.tokens", { tokens: compact(frame.tokens) })}`;
    this.where.textContent = t("training.step", { step: number(frame.step) }) + tokens;
    this.slider.setAttribute("aria-valuetext", this.where.textContent);
    this.now.show(Float64Array.from(frame.layers.flatMap(({ load }) => load)), STRONGEST / experts);
    this.time.resize(experts, this.columns.length);
    const over = new Float64Array(experts * this.columns.length);
    this.columns.forEach(({ item }, column) => item.layers[this.#row].load.forEach((share, expert) => (over[expert * this.columns.length + column] = share)));
    this.time.show(over, STRONGEST / experts);
    this.violation.resize(layers.length, this.columns.length);
    const uneven = new Float64Array(layers.length * this.columns.length);
    this.columns.forEach(({ item }, column) => item.layers.forEach(({ maxVio }, row) => (uneven[row * this.columns.length + column] = maxVio)));
    this.violation.show(uneven, STRONGEST - 1);
    const column = this.columns.findIndex((each) => each.place >= place);
    this.violation.choose(this.#row, column);
    this.#drawCurves();
  }

  #drawCurves() {
    const over = (read) => this.frames.map((frame) => [frame.step, read(frame.layers)]);
    const curves = [
      { name: t("training.maxvio.worst"), series: 2, points: over((layers) => Math.max(...layers.map(({ maxVio }) => maxVio))) },
      { name: t("training.maxvio.mean"), series: 1, points: over((layers) => layers.reduce((sum, { maxVio }) => sum + maxVio, 0) / layers.length) },
      { name: t("layer.name", { layer: this.layers[this.#row] }), series: 3, points: over((layers) => layers[this.#row].maxVio) },
    ];
    this.uneven.show(curves);
    fill(this.unevenLegend, curves.map(({ name, series }) => h("span", { class: "key", style: { "--swatch": `var(--series-${series})` } }, name)));
    const limited = this.frames.some(({ layers }) => layers.some(({ dropped, capacity }) => dropped || capacity !== null));
    this.droppedPanel.hidden = !limited;
    if (limited) this.dropped.show([{ name: t("training.dropped"), series: 4, points: over((layers) => layers.reduce((sum, { dropped }) => sum + dropped, 0)) }]);
  }

  #shown() {
    return this.frames.find(({ step }) => step === this.#frame) ?? this.frames.at(-1);
  }

  /** At the right end it follows the run. */
  #scrub() {
    const place = Number(this.slider.value);
    this.#frame = place === this.frames.length - 1 ? null : this.frames[place].step;
    this.#draw();
  }

  #go(column) {
    this.slider.value = String(this.columns[column].place);
    this.#scrub();
  }

  #choose(row) {
    this.#row = row;
    this.layer.value = String(row);
    this.#draw();
  }

  #stepName(column) {
    return compact(this.columns[column].item.step);
  }

  #told({ step, layers }, row, expert) {
    const share = layers[row].load[expert];
    return [t("cell.expert", { layer: this.layers[row], expert }), t("training.load.cell", { share: percent(share, 1), means: number(share * this.experts, 2) }), t("training.step", { step: number(step) })];
  }

  #toldViolation({ step, layers }, row) {
    const { maxVio, dropped } = layers[row];
    return [t("layer.name", { layer: this.layers[row] }), `MaxVio ${number(maxVio, 2)}`, dropped > 0 && t("training.dropped.cell", { count: number(dropped) }), t("training.step", { step: number(step) })].filter(Boolean);
  }
}
