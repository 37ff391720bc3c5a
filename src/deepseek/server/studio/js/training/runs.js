// Which training runs the server knows, looked at again while the page is open.

import { Emitter } from "../emitter.js";
import { getJson } from "../api/server.js";

const GAP = 2000; // milliseconds between looks

class Runs extends Emitter {
  list = null; // null: not told yet
  folder = "";
  hasMore = false;
  failure = null;
  #watchers = 0;
  #timer = null;

  /** Looks every two seconds until the function it gives back is called; what changed is seen by the list alone. */
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

  named(id) {
    return this.list?.find((run) => run.id === id) ?? null;
  }

  async #look() {
    if (!document.hidden) {
      try {
        const told = await getJson("v1/training/runs");
        Object.assign(this, { list: told.data, folder: told.folder, hasMore: told.has_more, failure: null });
      } catch (error) {
        this.failure = error;
      }
      this.emit("look");
    }
    clearTimeout(this.#timer);
    if (this.#watchers) this.#timer = setTimeout(() => this.#look(), GAP);
  }
}

export const runs = new Runs();
