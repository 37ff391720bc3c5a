// The training page: the runs of a folder, and one of them from its first step to its newest.

import { fill, h, paced } from "../dom.js";
import { compact, dateLabel, number, percent, bytes, seconds, t } from "../words.js";
import { command } from "../experts/dense_notice.js";
import { Figures } from "./figures.js";
import { Loads } from "./loads.js";
import { RunRecord } from "./record.js";
import { runs } from "./runs.js";
import { factsPanel, Needles, Samples } from "./texts.js";

const START = ["deepseek train recipes/smoke.toml"];
const DRAW_GAP = 200; // milliseconds between drawings while a long log is read
const RECENT = 20; // steps whose mean time says how long the rest takes

const records = new Map(); // kept while other pages are shown
let chosen = null;
let compared = null;

function recordOf(id) {
  if (!records.has(id)) records.set(id, new RunRecord(id));
  return records.get(id);
}

function stateOf(run) {
  if (run.going_on) return "training.goingon";
  return run.steps !== null && run.step >= run.steps ? "training.finished" : "training.ended";
}

const card = (name, shown, more = "") => h("div", { class: "card" }, h("span", { class: "name" }, name), h("span", { class: "value" }, shown), h("span", { class: "more" }, more));

export class TrainingPage {
  #listKey = "";
  #factsOf = null;

  constructor() {
    this.head = h("span", { class: "weak" });
    this.notice = h("div", { class: "notice error", role: "alert", hidden: true });
    this.list = h("section", { class: "panel", id: "runs" });
    this.board = h("div", { class: "board-panels" });
    this.element = h("main", { class: "page board", id: "main" }, h("div", { class: "board-inner" },
      h("div", { class: "board-head" }, h("h1", {}, t("page.training")), this.head), this.notice, this.list, this.board));
    this.draw = paced(() => this.#draw(), DRAW_GAP);
    this.ends = [runs.watch(() => this.#looked())];
    this.#looked();
  }

  leave() {
    for (const end of this.ends) end();
    this.endRecords?.forEach((end) => end());
  }

  themeChanged() {
    this.loads?.themeChanged();
  }

  shortcut() {
    return false;
  }

  #looked() {
    this.notice.hidden = runs.failure === null;
    if (runs.failure) fill(this.notice, t(runs.failure.status === 401 ? "link.key" : runs.failure.status === 404 ? "training.noroute" : "link.lost"));
    if (!runs.list) return;
    this.head.textContent = t("training.about", { folder: runs.folder });
    if (!runs.named(chosen)) this.#choose(runs.list[0]?.id ?? null);
    else if (!this.figures) this.#choose(chosen);
    if (!runs.named(compared)) compared = null;
    this.#drawList();
    if (!runs.failure) for (const id of [chosen, compared]) if (id !== null) recordOf(id).follow(runs.named(id));
    this.draw();
  }

  #choose(id) {
    if (compared === id) compared = null;
    chosen = id;
    this.#factsOf = null;
    this.#listen();
    if (id === null) {
      this.figures = this.loads = null;
      return fill(this.board);
    }
    this.cards = h("div", { class: "cards" });
    this.figures = new Figures({ others: () => runs.list.filter((run) => run.id !== chosen).map((run) => run.id), compare: (other) => this.#compare(other) });
    this.loads = new Loads();
    this.samples = new Samples();
    this.needles = new Needles();
    this.facts = h("div", {});
    return fill(this.board, this.cards, this.figures.element, this.loads.element, this.samples.element, this.needles.element, this.facts);
  }

  #pick(id) {
    if (id !== chosen) this.#choose(id);
    this.#looked();
  }

  #compare(other) {
    compared = other;
    this.#listen();
    this.#looked();
  }

  #listen() {
    this.endRecords?.forEach((end) => end());
    this.endRecords = [chosen, compared].filter((id) => id !== null).map((id) => recordOf(id).on("changed", this.draw));
  }

  #draw() {
    const run = runs.named(chosen);
    if (!run || !this.element.isConnected) return;
    const record = recordOf(chosen);
    this.#drawCards(run, record);
    this.figures.show(record, compared === null ? null : recordOf(compared));
    this.loads.show(record);
    this.samples.show(record);
    this.needles.show(record);
    if (record.facts && this.#factsOf !== record.facts) {
      this.#factsOf = record.facts;
      fill(this.facts, factsPanel(record));
    }
  }

  #drawCards(run, { points, evaluations }) {
    const last = points.at(-1);
    const heldOut = Object.entries(evaluations.at(-1)?.loss ?? {}).filter(([, loss]) => Number.isFinite(loss));
    const mean = heldOut.length ? heldOut.reduce((sum, [, loss]) => sum + loss, 0) / heldOut.length : null;
    const times = points.slice(-RECENT).map((point) => point.seconds).filter(Number.isFinite);
    const left = run.going_on && times.length && run.steps ? ((run.steps - run.step) * times.reduce((a, b) => a + b, 0)) / times.length : null;
    fill(this.cards,
      card(t("training.card.step"), [number(run.step), run.steps !== null && h("small", {}, ` / ${number(run.steps)}`)], left === null ? t(stateOf(run)) : t("training.left", { time: seconds(left) })),
      card(t("training.card.tokens"), compact(run.trained_tokens), run.tokens === null ? "" : t("training.card.of", { tokens: compact(run.tokens) })),
      card(t("training.card.loss"), number(run.loss, 3), t("training.nats")),
      card(t("training.card.heldout"), number(mean, 3), heldOut.length ? t("training.card.sources", { count: heldOut.length }) : ""),
      card(t("training.card.speed"), [number(last?.tokens_per_second), h("small", {}, t("card.speed.unit"))], last?.peak_share ? t("training.card.peak", { share: percent(last.peak_share) }) : ""),
      card(t("training.card.memory"), bytes(last?.memory_bytes), ""));
  }

  /** Drawn anew only when something in it changed: a key's focus stays where it is. */
  #drawList() {
    const key = JSON.stringify([runs.list.map((run) => [run.id, run.going_on, run.step, run.loss]), chosen, runs.hasMore]);
    if (key === this.#listKey) return;
    this.#listKey = key;
    if (!runs.list.length) return fill(this.list, h("h2", {}, t("training.none")), h("p", { class: "explain" }, t("training.none.text", { folder: runs.folder })), START.map(command));
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.run : undefined;
    const columns = ["name", "state", "step", "loss", "size", "changed"];
    fill(this.list, h("div", { class: "scroll-x tall" }, h("table", { class: "figures-table", "aria-label": t("training.runs") },
      h("thead", {}, h("tr", {}, columns.map((name) => h("th", {}, t(`training.column.${name}`))))),
      h("tbody", {}, runs.list.map((run) => this.#row(run))))), runs.hasMore && h("p", { class: "weak" }, t("training.more")));
    if (focused !== undefined) [...this.list.querySelectorAll("button")].find((button) => button.dataset.run === focused)?.focus();
    return this.list;
  }

  #row(run) {
    const share = run.steps ? Math.min(1, (run.step ?? 0) / run.steps) : 0;
    const size = run.parameters === null ? "–" : run.active_parameters === run.parameters || run.active_parameters === null ? compact(run.parameters) : t("training.size", { all: compact(run.parameters), active: compact(run.active_parameters) });
    return h("tr", { class: run.id === chosen ? "chosen" : "", onclick: () => this.#pick(run.id) },
      h("td", {}, h("button", { class: "chip run-name", type: "button", "aria-pressed": run.id === chosen, data: { run: run.id } }, run.id)),
      h("td", {}, h("span", { class: run.going_on ? "going-on" : "" }, t(stateOf(run))), run.origin === "model" && h("span", { class: "weak" }, ` · ${t("training.shipped")}`)),
      h("td", { class: "number" }, h("div", { class: "progress", role: "img", "aria-label": percent(share) }, h("span", { style: { width: `${100 * share}%` } })), h("span", { class: "steps" }, `${number(run.step)}${run.steps === null ? "" : ` / ${number(run.steps)}`}`)),
      h("td", {}, number(run.loss, 3)), h("td", {}, size), h("td", {}, run.changed ? dateLabel(run.changed * 1000) : "–"));
  }
}
