// Curves over steps or tokens, drawn as SVG, with a line that reads them at the pointer or at the keyboard's place.

import { fill, h, paced, svg } from "../dom.js";
import { hideTip, showTip } from "../overlay.js";
import { niceCeiling } from "./lines.js";

const WIDTH = 560; // pixels, before it is in the page
const LEFT = 52;
const RIGHT = 8;
const BOTTOM = 20;
const TOP = 10;

/** Up to six round numbers from `low` to `high`, which differ. */
export function ticks(low, high) {
  const step = niceCeiling((high - low) / 5);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, place) => (first + place) * step);
}

/** Place of the point with the x nearest to `x`; points are sorted by x, at least one. */
export function nearest(points, x) {
  let [low, high] = [0, points.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle + 1;
    else high = middle;
  }
  return low && x - points[low - 1][0] < points[low][0] - x ? low - 1 : low;
}

export class Curves {
  #curves = [];
  #cursor = null;

  /** label(value): text of a y value. at(x): text of an x value. fromZero: the y axis begins at 0. unit(top): what its round numbers count. */
  constructor({ label, at, title, fromZero = false, unit = () => 1, height = 170 }) {
    Object.assign(this, { label, at, fromZero, unit, height });
    this.chart = svg("svg", { class: "chart", height, role: "img", "aria-label": title, tabindex: "0" });
    this.element = h("div", { class: "curves" }, this.chart);
    this.redraw = paced(() => this.#draw());
    this.chart.addEventListener("pointermove", (event) => this.#look(this.#xAt(event)));
    this.chart.addEventListener("pointerleave", () => this.#look(null));
    this.chart.addEventListener("blur", () => this.#look(null));
    this.chart.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.redraw()).observe(this.element);
  }

  /**
   * curves: `[{name, points: [[x, y]], series: 1 to 4, dashed, faint, dots}]`; points sorted by x, all numbers finite.
   * A faint curve is not read at the pointer, dots mark each point.
   */
  show(curves) {
    this.#curves = curves.filter(({ points }) => points.length);
    this.redraw();
  }

  #scale() {
    const all = this.#curves.flatMap(({ points }) => [points[0][0], points.at(-1)[0]]);
    const [from, to] = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
    let [low, high] = this.fromZero || !all.length ? [0, 0] : [Infinity, -Infinity];
    for (const { points } of this.#curves) for (const [, y] of points) [low, high] = [Math.min(low, y), Math.max(high, y)];
    const room = (high - low) * 0.04 || Math.abs(high) * 0.1 || 1; // above and below, also of what never changes
    [low, high] = [this.fromZero ? low : low - room, high + room];
    const width = this.chart.clientWidth || WIDTH;
    const x = (value) => LEFT + ((value - from) / (to - from || 1)) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - (value - low) / (high - low)) * (this.height - TOP - BOTTOM);
    const unit = this.unit(high);
    return { from, to, marks: ticks(low / unit, high / unit).map((mark) => mark * unit), width, x, y };
  }

  #draw() {
    const scale = this.#scale();
    const { from, to, marks, width, x, y } = scale;
    const grid = marks.map((mark) => [
      svg("line", { class: "grid-line", x1: LEFT, x2: width - RIGHT, y1: y(mark), y2: y(mark) }),
      svg("text", { x: LEFT - 8, y: y(mark) + 4, "text-anchor": "end" }, this.label(mark)),
    ]);
    const places = this.#curves.length ? [[from, "start"], [(from + to) / 2, "middle"], [to, "end"]] : [];
    const names = places.map(([value, anchor]) => svg("text", { x: x(value), y: this.height - 4, "text-anchor": anchor }, this.at(Math.round(value))));
    fill(this.chart, grid, names, this.#curves.map((curve) => this.#line(curve, scale)), this.#reading(scale));
  }

  #line({ points, series, dashed, faint, dots }, { x, y }) {
    const way = points.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
    const style = `line-${series}${dashed ? " dashed" : ""}${faint ? " faint" : ""}`;
    return [
      points.length > 1 && svg("path", { class: style, d: `M${way.join("L")}`, fill: "none", "stroke-width": "1.6", "stroke-linejoin": "round" }),
      (dots || points.length === 1) && points.map(([at, value]) => svg("circle", { class: `dot-${series}`, cx: x(at), cy: y(value), r: 2.6 })),
    ];
  }

  #reading({ x, y }) {
    if (this.#cursor === null || !this.#curves.length) return null;
    const read = this.#read(this.#cursor);
    return [
      svg("line", { class: "reading", x1: x(this.#cursor), x2: x(this.#cursor), y1: TOP, y2: this.height - BOTTOM }),
      read.map(({ curve, point }) => svg("circle", { class: `dot-${curve.series}`, cx: x(point[0]), cy: y(point[1]), r: 3.4 })),
    ];
  }

  #read(at) {
    return this.#curves.filter(({ faint }) => !faint).map((curve) => ({ curve, point: curve.points[nearest(curve.points, at)] }));
  }

  #xAt(event) {
    const { from, to, width } = this.#scale();
    const share = (event.clientX - this.chart.getBoundingClientRect().left - LEFT) / (width - LEFT - RIGHT);
    return from + Math.max(0, Math.min(1, share)) * (to - from);
  }

  #look(at) {
    const long = this.#longest();
    this.#cursor = at === null || !long ? null : long[nearest(long, at)][0];
    this.redraw();
    if (this.#cursor === null) return hideTip();
    const box = this.chart.getBoundingClientRect();
    showTip({ x: box.left + this.#scale().x(this.#cursor) + 10, y: box.top + TOP }, h("div", { class: "weak number" }, this.at(this.#cursor)),
      this.#read(this.#cursor).map(({ curve, point }) => h("div", { class: "legend" },
        h("span", { class: `key${curve.dashed ? " dashed" : ""}`, style: { "--swatch": `var(--series-${curve.series})` } }, curve.name), h("span", { class: "number" }, this.label(point[1])))));
  }

  #longest() {
    return this.#curves.reduce((best, { points }) => (points.length > (best?.length ?? 0) ? points : best), null);
  }

  #key(event) {
    const long = this.#longest();
    if (!long || !["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    const place = this.#cursor === null ? long.length - 1 : nearest(long, this.#cursor);
    const step = Math.max(1, Math.round(long.length / 100));
    const to = { ArrowLeft: place - step, ArrowRight: place + step, Home: 0, End: long.length - 1 }[event.key];
    this.#look(long[Math.max(0, Math.min(long.length - 1, to))][0]);
    event.preventDefault();
  }
}
