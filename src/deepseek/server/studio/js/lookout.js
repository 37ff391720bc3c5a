// Something on the server that is looked at again and again while a page shows it.

import { Emitter } from "./emitter.js";
import { getJson } from "./api/server.js";

export class Lookout extends Emitter {
  failure = null; // of the last look
  #watchers = 0;
  #timer = null;

  /** gap: milliseconds between looks. take(answer) is what a class of this kind does with each. */
  constructor(path, gap) {
    super();
    Object.assign(this, { path, gap });
  }

  /** Looks until the function it gives back is called; the listener is called after each look. */
  watch(listener) {
    const end = this.on("look", listener);
    this.#watchers += 1;
    if (this.#watchers === 1) this.#look();
    return () => {
      end();
      this.#watchers -= 1;
      if (!this.#watchers) clearTimeout(this.#timer);
    };
  }

  async #look() {
    if (!document.hidden) {
      try {
        this.take(await getJson(this.path));
        this.failure = null;
      } catch (error) {
        this.failure = error;
      }
      this.emit("look");
    }
    clearTimeout(this.#timer);
    if (this.#watchers) this.#timer = setTimeout(() => this.#look(), this.gap);
  }
}
