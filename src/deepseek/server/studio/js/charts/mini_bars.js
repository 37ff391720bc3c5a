// A row of thin bars with a line at their mean: one layer's load at a glance.

import { h, themeColour } from "../dom.js";

export class MiniBars {
  constructor(label, height = 22) {
    this.height = height;
    this.canvas = h("canvas", { role: "img", "aria-label": label, style: { width: "100%", height: `${height}px` } });
  }

  /** values: not negative. The line stands at their mean. */
  show(values) {
    const width = this.canvas.clientWidth;
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    const most = Math.max(...values, 1e-9);
    const each = width / values.length;
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    context.fillStyle = `rgb(${themeColour("--series-1").join(" ")})`;
    values.forEach((value, place) => {
      const height = (value / most) * (this.height - 2);
      context.fillRect(place * each, this.height - height, Math.max(1, each - (each > 3 ? 1 : 0)), height);
    });
    if (!mean) return;
    context.fillStyle = `rgb(${themeColour("--flash").join(" ")})`;
    context.fillRect(0, this.height - (mean / most) * (this.height - 2), width, 1);
  }
}
