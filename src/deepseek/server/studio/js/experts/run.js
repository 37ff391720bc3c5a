// One watched generation: its tokens, each with its experts, and their counts, as they come.

import { Emitter } from "../emitter.js";
import { ApiError } from "../api/server.js";
import { streamChat, streamText } from "../api/generation.js";
import { ExpertCounts } from "./statistics.js";

export class ExpertRun {
  events = new Emitter(); // "piece" (list of routings that came), "end"
  tokens = []; // {text, logprob, layers: [{ids, weights}] or null}
  running = false;
  error = null;

  constructor(shape) {
    this.shape = shape;
    this.counts = new ExpertCounts(shape);
  }

  stop() {
    this.controller?.abort();
  }

  /** Never throws: what went wrong is in `error`. */
  async start(model, prompt, maxTokens) {
    this.controller = new AbortController();
    this.running = true;
    const { signal } = this.controller;
    const common = { model, max_tokens: maxTokens, stream: true, routed_experts: true };
    const chat = () => streamChat({ ...common, messages: [{ role: "user", content: prompt }], logprobs: true }, signal);
    const text = () => streamText({ ...common, prompt, logprobs: 0 }, signal);
    try {
      await this.#follow(chat()).catch((error) => {
        // A base model has no chat template: it goes on with the text instead.
        if (error instanceof ApiError && error.status === 400 && !this.tokens.length) return this.#follow(text());
        throw error;
      });
    } catch (error) {
      if (error.name !== "AbortError") this.error = error;
    }
    this.running = false;
    this.events.emit("end");
  }

  async #follow(pieces) {
    for await (const piece of pieces) this.#add(piece);
  }

  #add({ tokens, routing }) {
    tokens.forEach(({ text, logprob }, place) => this.tokens.push({ text, logprob, layers: routing[place] ?? null }));
    const came = routing.filter((layers) => layers);
    for (const layers of came) this.counts.add(layers);
    this.events.emit("piece", came);
  }

  /** What each routed token used, in order. */
  routed() {
    return this.tokens.filter(({ layers }) => layers).map(({ layers }) => layers);
  }
}
