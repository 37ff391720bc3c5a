// Counts in buckets as bars, with marks at quantiles.

import { fill, svg } from "../dom.js";

const WIDTH = 360; // pixels, before it is in the page
const HEIGHT = 150;
const BOTTOM = 20;
const TOP = 20;

/** The value below which `share` of all lie, by straight lines within a bucket; null without any. */
export function quantile({ bounds, counts }, share) {
  const total = counts.reduce((a, b) => a + b, 0);
  if (!total) return null;
  let below = 0;
  for (let place = 0; place < counts.length; place += 1) {
    if (below + counts[place] >= share * total && counts[place]) {
      const low = place ? bounds[place - 1] : 0;
      const high = bounds[place] ?? low;
      return low + (high - low) * ((share * total - below) / counts[place]);
    }
    below += counts[place];
  }
  return bounds.at(-1);
}

export class Histogram {
  /** label(bound): text of a bound. title: for who cannot see it. */
  constructor({ label, title, describe }) {
    Object.assign(this, { label, describe });
    this.element = svg("svg", { class: "chart", height: HEIGHT, role: "img", "aria-label": title });
  }

  /** data: {bounds, counts}, counts one longer: the last has no upper bound. marks: [{value, text}]. */
  show(data, marks = []) {
    const used = data.counts.map((count, place) => (count ? place : -1)).filter((place) => place >= 0);
    const from = Math.max(0, (used[0] ?? 0) - 1);
    const to = Math.min(data.counts.length - 1, (used.at(-1) ?? 5) + 1);
    const shown = data.counts.slice(from, to + 1);
    const most = Math.max(1, ...shown);
    const width = this.element.clientWidth || WIDTH;
    const each = width / shown.length;
    const bars = shown.map((count, place) => {
      const height = (count / most) * (HEIGHT - TOP - BOTTOM);
      return svg("rect", { class: "bar", x: place * each + 1, y: HEIGHT - BOTTOM - height, width: Math.max(1, each - 2), height, rx: 2 },
        svg("title", {}, this.describe(data.bounds[from + place - 1] ?? 0, data.bounds[from + place] ?? Infinity, count)));
    });
    const every = Math.ceil(shown.length / 6);
    const labels = shown.map((_, place) => (place % every || data.bounds[from + place] === undefined || place === shown.length - 1 ? null
      : svg("text", { x: (place + 1) * each, y: HEIGHT - 5, "text-anchor": "middle" }, this.label(data.bounds[from + place]))));
    const at = (value) => this.#place(data.bounds, from, value) * each;
    const lines = marks.filter(({ value }) => value !== null).map(({ value, text }, place) => [
      svg("line", { class: "mark", x1: at(value), x2: at(value), y1: TOP - 6, y2: HEIGHT - BOTTOM }),
      svg("text", { class: "mark-text", x: Math.min(width - 14, Math.max(14, at(value))), y: 10, "text-anchor": place ? "start" : "end" }, text),
    ]);
    fill(this.element, svg("line", { class: "grid-line", x1: 0, x2: width, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }), bars, labels, lines);
  }

  /** Where `value` lies, in bars from the left. */
  #place(bounds, from, value) {
    const bucket = bounds.findIndex((bound) => value <= bound);
    if (bucket < 0) return bounds.length - from;
    const low = bucket ? bounds[bucket - 1] : 0;
    return bucket - from + (value - low) / (bounds[bucket] - low);
  }
}
