// What one run has written so far: its facts, and the lines of its files, of which only new bytes are asked for.

import { Emitter } from "../emitter.js";
import { getJson } from "../api/server.js";
import { finite, loadFrame, sameShape } from "./load.js";

const POINTS = 2000; // steps that are shown at most, about
const FRAMES = 240; // steps at most whose loads of experts are shown
const FILES = ["log", "evaluations", "samples", "needle"];
const FIGURES = ["tokens", "loss", "main_loss", "mtp_loss", "learning_rate", "gradient_norm", "seconds", "tokens_per_second", "peak_share", "memory_bytes"];

/** The least of 1, 2, 5, 10, 20, 50 ... that is not below `value`. */
export function roundStep(value) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(Math.max(1, value))));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

export class RunRecord extends Emitter {
  facts = null;
  leftOut = [];
  every = 1; // one of so many steps is kept
  loadsEvery = 1;
  damaged = 0;
  share = 1; // of the log that has been read
  failure = null;
  #seen = {};
  #busy = false;

  constructor(id) {
    super();
    this.id = id;
    for (const name of FILES) this.#forget(name);
  }

  get path() {
    return `v1/training/runs/${encodeURIComponent(this.id)}`;
  }

  /** Reads what the list says is new. Emits "changed" with each part that came. */
  async follow(card) {
    if (this.#busy) return;
    this.#busy = true;
    try {
      if (this.facts === null || this.#seen.log.version !== card.files.log?.version) await this.#readFacts(card);
      for (const name of FILES) if (this.#isOld(name, card)) await this.#readFile(name);
      this.failure = null;
    } catch (error) {
      this.failure = error;
    } finally {
      this.#busy = false;
      this.emit("changed");
    }
  }

  /** Whether a file is another than the one that was read, or longer. */
  #isOld(name, card) {
    const [seen, now] = [this.#seen[name], card.files[name]];
    return now !== undefined && (seen.version !== now.version || seen.bytes !== now.bytes);
  }

  async #readFacts(card) {
    const told = await getJson(this.path);
    this.facts = told.facts ?? {};
    this.leftOut = told.left_out;
    const steps = card.steps ?? card.step ?? 1;
    const loadEvery = Math.max(1, Math.round(finite(this.facts.recipe?.training?.load_every) ?? 10));
    this.every = roundStep(steps / POINTS);
    this.loadsEvery = loadEvery * roundStep(steps / loadEvery / FRAMES);
  }

  async #readFile(name) {
    for (let more = true; more; ) {
      const { offset, version } = this.#seen[name];
      const thin = name === "log" ? `&every=${this.every}&loads_every=${this.loadsEvery}` : "";
      const page = await getJson(`${this.path}/${name}?offset=${offset}${thin}`);
      if (page.offset !== offset || (version !== null && version !== page.version)) {
        this.#forget(name); // it was written anew while we read
        if (page.offset !== 0) continue;
      }
      this.#seen[name] = { offset: page.next_offset, version: page.version, bytes: page.bytes };
      this.damaged += page.damaged;
      for (const line of page.lines) this.#add(name, line);
      this.#thin();
      if (name === "log") this.share = page.bytes ? page.next_offset / page.bytes : 1;
      more = page.has_more;
      this.emit("changed");
    }
    if (name === "log") this.share = 1;
  }

  #forget(name) {
    this.#seen[name] = { offset: 0, version: null, bytes: -1 };
    if (name === "log") Object.assign(this, { points: [], frames: [], damaged: 0 });
    else this[name] = [];
  }

  #add(name, line) {
    if (name !== "log") return this[name].push(line);
    if (line.step <= 1 || line.step % this.every === 0) this.points.push({ step: line.step, ...Object.fromEntries(FIGURES.map((key) => [key, finite(line[key])])) });
    const frame = loadFrame(line);
    if (frame && (!this.frames.length || sameShape(frame, this.frames[0]))) this.frames.push(frame);
    return this.points.length;
  }

  /** A run may be longer than its facts say. */
  #thin() {
    if (this.points.length > 2 * POINTS) {
      this.every = roundStep(this.every * 2);
      this.points = this.points.filter(({ step }) => step <= 1 || step % this.every === 0);
    }
    if (this.frames.length > 2 * FRAMES) {
      this.frames = this.frames.filter((_, place) => place % 2);
      this.loadsEvery *= 2;
    }
  }
}
