// One watched generation: its tokens, each with its experts, and their counts, as they come.

import { Emitter } from "../emitter.js";
import { streamChat } from "../api/generation.js";
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
    const body = {
      model, messages: [{ role: "user", content: prompt }], max_tokens: maxTokens, stream: true, logprobs: true, routed_experts: true,
      stream_options: { include_usage: true },
    };
    try {
      for await (const piece of streamChat(body, this.controller.signal)) this.#add(piece);
    } catch (error) {
      if (error.name !== "AbortError") this.error = error;
    }
    this.running = false;
    this.events.emit("end");
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
