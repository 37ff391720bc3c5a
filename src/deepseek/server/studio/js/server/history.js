// The server's counters over the last minutes, kept while the page is open, and the rates between them.

import { Lookout } from "../lookout.js";

export const SPAN = 180; // seconds that are kept

class History extends Lookout {
  samples = []; // {at: seconds, status}, oldest first

  get latest() {
    return this.samples.at(-1)?.status ?? null;
  }

  take(status) {
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

export const history = new History("v1/server/status", 1000);
