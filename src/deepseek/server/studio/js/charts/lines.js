// Lines over time, drawn as SVG.

import { fill, svg } from "../dom.js";

const WIDTH = 560; // pixels, before it is in the page
const HEIGHT = 170;
const LEFT = 44;
const BOTTOM = 18;
const TOP = 8;

/** The least of 1, 2, 2.5, 5 times a power of ten that is not below `value`. */
export function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].find((step) => step * power >= value) * power;
}

export class Lines {
  /** series: how many. span: seconds on the x axis. label(value): of the y axis. ago(seconds): of the x axis. least: smallest top. */
  constructor({ series, span, label, ago, title, least = 1 }) {
    Object.assign(this, { series, span, label, ago, least });
    this.element = svg("svg", { class: "chart", height: HEIGHT, role: "img", "aria-label": title });
  }

  /** points: `[{age, values: [number or null, one a series]}]`, age in seconds before now. */
  show(points) {
    const top = niceCeiling(Math.max(this.least, ...points.flatMap(({ values }) => values.map((value) => value ?? 0))));
    const width = this.element.clientWidth || WIDTH;
    const x = (age) => LEFT + (1 - age / this.span) * (width - LEFT - 4);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    const grid = [0, 0.5, 1].map((share) => [
      svg("line", { class: "grid-line", x1: LEFT, x2: width - 4, y1: y(top * share), y2: y(top * share) }),
      svg("text", { x: LEFT - 8, y: y(top * share) + 4, "text-anchor": "end" }, this.label(top * share)),
    ]);
    const times = [1, 0.5, 0].map((share) =>
      svg("text", { x: x(this.span * share), y: HEIGHT - 3, "text-anchor": share === 1 ? "start" : share ? "middle" : "end" }, this.ago(this.span * share)));
    const lines = Array.from({ length: this.series }, (_, place) => this.#line(points.filter(({ values }) => values[place] !== null), place, x, y));
    fill(this.element, grid, times, lines);
  }

  #line(points, place, x, y) {
    if (points.length < 2) return null;
    const way = points.map(({ age, values }) => `${x(age).toFixed(1)},${y(values[place]).toFixed(1)}`);
    const [first, last] = [points[0], points.at(-1)];
    return [
      svg("path", { class: `area-${place + 1}`, d: `M${x(first.age)},${y(0)}L${way.join("L")}L${x(last.age)},${y(0)}Z`, ...(place > 1 && { fill: "none" }) }),
      svg("path", { class: `line-${place + 1}`, d: `M${way.join("L")}`, fill: "none", "stroke-width": "1.8", "stroke-linejoin": "round" }),
    ];
  }
}
