// What a run writes and recalls at its evaluations, and what it is: always as text, never as markup.

import { fill, h } from "../dom.js";
import { compact, number, percent, t } from "../words.js";
import { finite } from "./load.js";

const text = (value) => (typeof value === "string" ? value : "");

export class Samples {
  #step = null; // null: the newest

  constructor() {
    this.select = h("select", { "aria-label": t("training.samples.when"), onchange: () => this.#choose() });
    this.list = h("div", { class: "grid-gap" });
    this.element = h("section", { class: "panel", id: "samples" }, h("div", { class: "panel-head" }, h("h2", {}, t("training.samples")), h("div", { class: "controls" }, this.select)), this.list);
  }

  show({ samples }) {
    this.element.hidden = !samples.length;
    if (!samples.length) return;
    this.samples = samples;
    const steps = [...new Set(samples.map(({ step }) => step))].reverse();
    const step = steps.includes(this.#step) ? this.#step : steps[0];
    const key = `${steps.length}/${samples.length}/${step}`;
    if (this.element.dataset.key === key) return;
    this.element.dataset.key = key;
    this.steps = steps;
    fill(this.select, steps.map((each) => h("option", { value: each }, t("training.step", { step: number(each) }))));
    this.select.value = String(step);
    fill(this.list, samples.filter((sample) => sample.step === step).map((sample) =>
      h("pre", { class: "sample", tabindex: "0" }, h("span", { class: "sample-prompt" }, text(sample.prompt)), text(sample.text))));
  }

  #choose() {
    const step = Number(this.select.value);
    this.#step = step === this.steps[0] ? null : step;
    this.show(this);
  }
}

export class Needles {
  constructor() {
    this.table = h("table", { class: "figures-table plain" });
    this.element = h("section", { class: "panel", id: "needle" }, h("div", { class: "panel-head" }, h("h2", {}, t("training.needle"))),
      h("p", { class: "explain" }, t("training.needle.text")), h("div", { class: "scroll-x tall" }, this.table));
  }

  /** A row for each measurement and length, a column for each depth. */
  show({ needle }) {
    this.element.hidden = !needle.length;
    const rows = needle.flatMap((found) => Object.entries(found.recall ?? {}).map(([length, recall]) => ({ found, length, recall, depths: found.by_depth?.[length] ?? {} })));
    const depths = [...new Set(rows.flatMap((row) => Object.keys(row.depths)))].sort((a, b) => a - b);
    fill(this.table,
      h("thead", {}, h("tr", {}, [t("training.needle.step"), t("training.needle.sight"), t("training.needle.length"), t("training.needle.recall")].map((name) => h("th", {}, name)),
        depths.map((depth) => h("th", {}, t("training.needle.depth", { depth: percent(Number(depth)) }))))),
      h("tbody", {}, rows.map(({ found, length, recall, depths: at }) => h("tr", {},
        h("td", {}, number(found.step)), h("td", {}, finite(found.window) === null ? t("training.needle.full") : t("training.needle.window", { tokens: number(found.window) })),
        h("td", {}, number(Number(length))), h("td", {}, h("strong", {}, percent(finite(recall)))), depths.map((depth) => h("td", {}, percent(finite(at[depth]))))))));
  }
}

/** Rows of [name, value] that a reader asks for first; the whole recipe and configuration below them. */
export function factsPanel({ facts, leftOut }) {
  const { config = {}, machine = {}, stages = [], recipe } = facts ?? {};
  const moe = config?.moe;
  const count = (value) => (finite(value) === null ? null : compact(value));
  const rows = [
    ["parameters", count(facts?.parameters)], ["active", count(facts?.active_parameters)], ["prediction", facts?.prediction_parameters ? count(facts.prediction_parameters) : null],
    ["family", text(config?.family) || null], ["layers", count(config?.num_hidden_layers)], ["width", count(config?.hidden_size)], ["vocabulary", count(config?.vocab_size)],
    ["experts", moe ? t("training.fact.experts.text", { experts: number(finite(moe.n_routed_experts)), active: number(finite(moe.num_experts_per_tok)), shared: number(finite(moe.n_shared_experts)) }) : null],
    ["stages", Array.isArray(stages) && stages.length ? stages.map((stage) => t("training.fact.stage", { name: text(stage?.name), steps: number(finite(stage?.stop - stage?.start)), length: number(finite(stage?.sequence_length)) })).join("; ") : null],
    ["machine", [text(machine?.processor), finite(machine?.cores) !== null && t("training.fact.cores", { cores: machine.cores })].filter(Boolean).join(", ") || null],
    ["peak", finite(machine?.matrix_peak) === null ? null : `${number(machine.matrix_peak / 1e9, machine.matrix_peak < 1e10 ? 2 : 0)} GFLOP/s`],
    ["versions", [machine?.deepseek && `deepseek ${text(machine.deepseek)}`, machine?.torch && `PyTorch ${text(machine.torch)}`].filter(Boolean).join(", ") || null],
    ["leftout", leftOut.length ? leftOut.map((batch) => text(batch?.explanation)).join("; ") : null],
  ].filter(([, value]) => value !== null);
  const whole = (name, value) => value && h("details", {}, h("summary", {}, t(name)), h("pre", { class: "inspected" }, JSON.stringify(value, null, 2)));
  return h("section", { class: "panel", id: "facts" }, h("div", { class: "panel-head" }, h("h2", {}, t("training.facts"))),
    rows.length ? h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, t(`training.fact.${name}`)), h("dd", {}, value)])) : h("p", { class: "weak" }, t("training.facts.none")),
    whole("training.recipe", recipe), whole("training.config", facts?.config));
}
