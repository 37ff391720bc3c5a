// Losses, learning rate, gradient, speed and memory over steps or tokens.

import { fill, h } from "../dom.js";
import { Curves } from "../charts/curves.js";
import { bytes, byteUnit, compact, number, percent, small, t } from "../words.js";
import { finite } from "./load.js";

const SMOOTHING = [1, 10, 50, 200]; // steps over which the training loss is averaged
const MOST_SOURCES = 3; // of held-out text with a line each; of more their mean is shown, or the one that is chosen
const SHORT = 1000; // steps of a run that is smoothed less
const RANGES = [1, 0.5, 0.1]; // shares of the run, from its end, that can be looked at
const FIGURES = [
  ["learning_rate", small, true], ["gradient_norm", (value) => number(value, 2), true], ["tokens_per_second", (value) => number(value), true],
  ["peak_share", (value) => percent(value), true], ["memory_bytes", bytes, true, byteUnit], ["mtp_loss", (value) => number(value, 2), false],
];

function meanOf(losses) {
  const values = Object.values(losses ?? {}).filter(Number.isFinite);
  return values.length ? values.reduce((sum, value) => sum + value) / values.length : null;
}

const sourcesOf = (record) => [...new Set(record.evaluations.flatMap(({ loss }) => Object.keys(loss ?? {})))];

/** Each point's mean with those at most `span` / 2 steps before and after it; points: [[step, x, y]] in order. */
export function smoothed(points, span) {
  let [sum, first, after] = [0, 0, 0];
  return points.map(([step, x]) => {
    for (; after < points.length && points[after][0] <= step + span / 2; after += 1) sum += points[after][2];
    for (; points[first][0] < step - span / 2; first += 1) sum -= points[first][2];
    return [x, sum / (after - first)];
  });
}

export class Figures {
  #axis = "steps";
  #span = null; // null: by the length of the run
  #range = 1;

  /** others(): names of runs to compare with. compare(name or null): the reader chose one. */
  constructor({ others, compare }) {
    Object.assign(this, { others, compare });
    const at = (x) => (this.#axis === "steps" ? t("training.step", { step: number(x) }) : t("training.tokens", { tokens: compact(x) }));
    this.loss = new Curves({ label: (value) => number(value, 2), at, title: t("training.loss"), height: 280 });
    this.legend = h("div", { class: "legend" });
    this.thinned = h("p", { class: "explain" });
    this.axes = h("div", { class: "segments", role: "group", "aria-label": t("training.axis") }, ["steps", "tokens"].map((name) =>
      h("button", { type: "button", "aria-pressed": name === this.#axis, onclick: (event) => this.#setAxis(name, event.currentTarget) }, t(`training.axis.${name}`))));
    this.smoothing = h("select", { "aria-label": t("training.smoothing"), onchange: () => { this.#span = Number(this.smoothing.value); this.draw(); } },
      SMOOTHING.map((span) => h("option", { value: span }, span === 1 ? t("training.smoothing.none") : t("training.smoothing.over", { steps: span }))));
    this.range = h("select", { "aria-label": t("training.range"), value: this.#range, onchange: () => { this.#range = Number(this.range.value); this.draw(); } },
      RANGES.map((share) => h("option", { value: share }, share === 1 ? t("training.range.all") : t("training.range.last", { share: percent(share) }))));
    this.source = h("select", { "aria-label": t("training.source"), onchange: () => this.draw() });
    this.comparison = h("select", { "aria-label": t("training.compare"), onchange: () => this.compare(this.comparison.value || null) });
    this.small = FIGURES.map(([name, label, fromZero, unit]) => ({ name, curves: new Curves({ label, at, fromZero, unit, title: t(`training.${name}`), height: 130 }) }));
    this.element = h("div", { class: "board-panels" },
      h("section", { class: "panel", id: "loss" },
        h("div", { class: "panel-head" }, h("h2", {}, t("training.loss")), h("div", { class: "controls" }, this.comparison, this.source, this.range, this.smoothing, this.axes)),
        this.loss.element, this.legend, this.thinned),
      h("div", { class: "row-3" }, this.small.map(({ name, curves }) =>
        h("section", { class: "panel", id: name.replaceAll("_", "-") }, h("h2", { class: "panel-title" }, t(`training.${name}`)), curves.element))));
  }

  /** other: the record that is compared, or null. */
  show(record, other) {
    Object.assign(this, { record, other });
    this.draw();
  }

  draw() {
    const { record, other } = this;
    if (!record) return;
    this.#drawComparison();
    this.#drawSources();
    this.smoothing.value = String(this.#spanOf(record));
    const curves = [...this.#losses(record, false), ...(other ? this.#losses(other, true) : [])];
    this.#show(this.loss, curves);
    fill(this.legend, curves.filter(({ faint }) => !faint).map(({ name, series, dashed }) =>
      h("span", { class: `key${dashed ? " dashed" : ""}`, style: { "--swatch": `var(--series-${series})` } }, name)));
    this.thinned.textContent = [
      record.every > 1 && t("training.thinned", { every: number(record.every) }), record.share < 1 && t("training.reading", { share: percent(record.share) }),
      record.failure?.status && record.failure.message, record.damaged > 0 && t("training.damaged", { count: number(record.damaged) }),
    ].filter(Boolean).join(" ");
    this.thinned.hidden = !this.thinned.textContent;
    for (const { name, curves: chart } of this.small) {
      const own = { name: record.id, series: 1, points: this.#points(record.points, (point) => point[name]) };
      this.#show(chart, other ? [own, { name: other.id, series: 2, dashed: true, points: this.#points(other.points, (point) => point[name]) }] : [own]);
      chart.element.parentElement.hidden = name === "mtp_loss" && !own.points.some(([, y]) => y > 0);
    }
  }

  /** Only the end of the run where the reader chose that. */
  #show(chart, curves) {
    const from = (1 - this.#range) * Math.max(0, ...curves.map(({ points }) => points.at(-1)?.[0] ?? 0));
    chart.show(this.#range === 1 ? curves : curves.map((curve) => ({ ...curve, points: curve.points.filter(([x]) => x >= from) })));
  }

  #losses(record, dashed) {
    const span = this.#spanOf(this.record);
    const whose = (text) => (this.other ? `${record.id}: ${text}` : text);
    const read = (point) => point.main_loss ?? point.loss;
    const raw = record.points.filter((point) => read(point) !== null && this.#x(point) !== null);
    return [
      !dashed && span > 1 && { name: "", series: 1, faint: true, points: this.#points(raw, read) },
      { name: whose(t("training.loss.training")), series: 1, dashed, points: smoothed(raw.map((point) => [point.step, this.#x(point), read(point)]), span) },
      ...this.#heldOut(record).map(([name, points], place) => ({ name: whose(name), series: 2 + place, dashed, dots: true, points })),
    ].filter(Boolean);
  }

  /** [[name, points]] of held-out text. */
  #heldOut(record) {
    const sources = sourcesOf(record);
    const lineOf = (source) => [t("training.loss.heldout", { source }), this.#points(record.evaluations, ({ loss }) => loss?.[source])];
    if (sources.length <= MOST_SOURCES) return sources.map(lineOf);
    if (this.source.value) return [lineOf(this.source.value)];
    return [[t("training.loss.mean", { count: number(sources.length) }), this.#points(record.evaluations, ({ loss }) => meanOf(loss))]];
  }

  #spanOf({ facts, points }) {
    return this.#span ?? ((finite(facts?.steps) ?? points.at(-1)?.step ?? 0) < SHORT ? SMOOTHING[1] : SMOOTHING[2]);
  }

  #x(point) {
    const value = this.#axis === "steps" ? point.step : point.tokens;
    return Number.isFinite(value) ? value : null;
  }

  #points(all, read) {
    return all.map((point) => [this.#x(point), read(point)]).filter(([x, y]) => x !== null && Number.isFinite(y));
  }

  #drawComparison() {
    const names = this.others();
    const key = JSON.stringify(names);
    if (this.comparison.dataset.names !== key) {
      fill(this.comparison, h("option", { value: "" }, t("training.compare.none")), names.map((name) => h("option", { value: name }, t("training.compare.with", { name }))));
      this.comparison.dataset.names = key;
    }
    this.comparison.hidden = !names.length;
    this.comparison.value = this.other?.id ?? "";
  }

  #drawSources() {
    const names = sourcesOf(this.record);
    const key = JSON.stringify(names);
    if (this.source.dataset.names !== key) {
      const chosen = this.source.value;
      fill(this.source, h("option", { value: "" }, t("training.source.mean", { count: number(names.length) })), names.map((name) => h("option", { value: name }, name)));
      this.source.value = names.includes(chosen) ? chosen : "";
      this.source.dataset.names = key;
    }
    this.source.hidden = names.length <= MOST_SOURCES;
  }

  #setAxis(name, button) {
    this.#axis = name;
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", other === button);
    this.draw();
  }
}
