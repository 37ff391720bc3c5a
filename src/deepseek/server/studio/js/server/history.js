// The server's counters over the last minutes, kept while the page is open, and the rates between them.

import { Emitter } from "../emitter.js";
import { getJson } from "../api/server.js";

export const SPAN = 180; // seconds that are kept
const GAP = 1000; // milliseconds between looks

class History extends Emitter {
  samples = []; // {at: seconds, status}, oldest first
  failure = null;
  #watchers = 0;
  #timer = null;

  /** Looks once a second until the function it gives back is called. */
  watch(listener) {
    const end = this.on("sample", listener);
    this.#watchers += 1;
    if (this.#watchers === 1) this.#look();
    return () => {
      end();
      this.#watchers -= 1;
      if (!this.#watchers) clearTimeout(this.#timer);
    };
  }

  get latest() {
    return this.samples.at(-1)?.status ?? null;
  }

  async #look() {
    if (!document.hidden) {
      try {
        this.#add(await getJson("v1/server/status"));
        this.failure = null;
      } catch (error) {
        this.failure = error;
      }
      this.emit("sample");
    }
    clearTimeout(this.#timer);
    if (this.#watchers) this.#timer = setTimeout(() => this.#look(), GAP);
  }

  #add(status) {
    const at = performance.now() / 1000;
    const before = this.latest;
    // A server that was started anew counts from zero: what it replaced is no past of it.
    if (before && status.uptime_seconds < before.uptime_seconds) this.samples = [];
    this.samples.push({ at, status });
    while (this.samples[0].at < at - SPAN) this.samples.shift();
  }

  /** Points for a chart: `[{age, values}]`, `read(status)` giving the values. */
  levels(read) {
    const now = performance.now() / 1000;
    return this.samples.map(({ at, status }) => ({ age: now - at, values: read(status) }));
  }

  /** The same for counters, as change a second. */
  rates(read) {
    const now = performance.now() / 1000;
    return this.samples.slice(1).map(({ at, status }, place) => {
      const before = this.samples[place];
      const [older, newer] = [read(before.status), read(status)];
      return { age: now - at, values: newer.map((value, each) => (value === null || older[each] === null ? null : Math.max(0, value - older[each]) / (at - before.at))) };
    });
  }
}

export const history = new History();
