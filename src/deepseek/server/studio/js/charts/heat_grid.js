// A grid of coloured cells on a canvas, with labels, a cell under the pointer, and cells that flash and fade.

import { h, paced, themeColour } from "../dom.js";
import { hideTip, showTip } from "../overlay.js";
import { heatScale } from "./colour_scale.js";

const FADE = 700; // milliseconds for which a cell stays lit
const AXIS = 18; // pixels below the grid
const TALL = 420; // pixels of a grid at most, where its cells can be so small

export class HeatGrid {
  #lit = null;
  #litAt = 0;
  #chosen = null;
  #cursor = null;

  /**
   * rows, columns: counts. rowName(row), columnName(column): short labels. describe(row, column): lines of the card.
   * pick(row, column): a cell was clicked. square: cells as high as wide. tallest, widest: most pixels of a cell.
   * narrowest: least pixels of a cell's width. columnRoom: pixels that a column's name takes.
   * seams: lines between cells that are large enough for them.
   */
  constructor({ rows, columns, rowName, columnName, describe, pick, label, square = false, tallest = 18, widest = square ? 22 : 40, labelWidth = 34, narrowest = square ? 3 : 5, columnRoom = 26, seams = true }) {
    Object.assign(this, { rows, columns, rowName, columnName, describe, pick, square, tallest, widest, labelWidth, narrowest, columnRoom, seams });
    this.values = new Float64Array(rows * columns);
    this.most = 0;
    this.canvas = h("canvas", { tabindex: "0", role: "img", "aria-label": label });
    this.element = h("div", { class: "grid-box" }, this.canvas);
    this.redraw = paced(() => this.#draw());
    this.canvas.addEventListener("pointermove", (event) => this.#point(this.#cellAt(event)));
    this.canvas.addEventListener("pointerleave", () => this.#point(null));
    this.canvas.addEventListener("blur", () => this.#point(null));
    this.canvas.addEventListener("click", (event) => this.#pickCell(this.#cellAt(event)));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    this.size = new ResizeObserver(() => this.redraw());
    this.size.observe(this.element);
    this.themeChanged();
  }

  themeChanged() {
    this.scale = heatScale();
    this.colours = Object.fromEntries(["ink", "faint", "flash", "surface"].map((name) => [name, `rgb(${themeColour(`--${name}`).join(" ")})`]));
    this.redraw();
  }

  /** values: rows x columns. most: what the strongest colour stands for; by default the largest value. */
  show(values, most = null) {
    this.values = values;
    this.most = most ?? values.reduce((a, b) => Math.max(a, b), 0);
    this.redraw();
  }

  /** Other counts of rows and columns: `show` must follow. */
  resize(rows, columns) {
    if (this.#cursor && (this.#cursor[0] >= rows || this.#cursor[1] >= columns)) this.#cursor = null;
    Object.assign(this, { rows, columns });
  }

  /** cells: a list of [row, column] that were just used. */
  flash(cells) {
    this.#lit = cells;
    this.#litAt = performance.now();
    this.redraw();
  }

  choose(row, column) {
    this.#chosen = row === null ? null : [row, column];
    this.redraw();
  }

  #layout() {
    const room = Math.max(120, this.element.clientWidth - this.labelWidth);
    const most = this.square ? Math.min(this.widest, TALL / this.rows) : this.widest;
    const width = Math.max(this.narrowest, Math.min(most, room / this.columns));
    const height = this.square ? width : Math.max(7, Math.min(this.tallest, TALL / this.rows));
    return { width, height, gap: this.seams && width > 6 && height > 6 ? 1 : 0 };
  }

  #draw() {
    if (!this.element.clientWidth) return;
    const { width, height, gap } = this.#layout();
    const total = [this.labelWidth + width * this.columns + 1, height * this.rows + AXIS];
    const ratio = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(total[0] * ratio) || this.canvas.height !== Math.round(total[1] * ratio)) {
      this.canvas.width = Math.round(total[0] * ratio);
      this.canvas.height = Math.round(total[1] * ratio);
      this.canvas.style.width = `${total[0]}px`;
      this.canvas.style.height = `${total[1]}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, ...total);
    for (let row = 0; row < this.rows; row += 1) {
      for (let column = 0; column < this.columns; column += 1) {
        context.fillStyle = this.scale(this.most ? this.values[row * this.columns + column] / this.most : 0);
        context.fillRect(this.labelWidth + column * width, row * height, width - gap, height - gap);
      }
    }
    this.#drawLabels(context, width, height);
    this.#drawLit(context, width, height, gap);
    for (const [cell, colour] of [[this.#chosen, this.colours.flash], [this.#cursor, this.colours.ink]]) {
      if (!cell) continue;
      context.strokeStyle = colour;
      context.lineWidth = 2;
      context.strokeRect(this.labelWidth + cell[1] * width, cell[0] * height, width - gap, height - gap);
    }
  }

  #drawLabels(context, width, height) {
    context.fillStyle = this.colours.faint;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    const everyRow = Math.ceil(13 / height);
    for (let row = 0; row < this.rows; row += everyRow) context.fillText(this.rowName(row), this.labelWidth - 7, (row + 0.5) * height);
    context.textAlign = "center";
    const everyColumn = [1, 2, 4, 8, 16, 32, 64, 128].find((step) => step * width >= this.columnRoom) ?? 256;
    for (let column = 0; column < this.columns; column += everyColumn) {
      context.fillText(this.columnName(column), this.labelWidth + (column + 0.5) * width, height * this.rows + AXIS / 2 + 1);
    }
  }

  #drawLit(context, width, height, gap) {
    const left = this.#lit ? 1 - (performance.now() - this.#litAt) / FADE : 0;
    if (left <= 0) return;
    context.globalAlpha = left;
    context.fillStyle = this.colours.flash;
    for (const [row, column] of this.#lit) context.fillRect(this.labelWidth + column * width, row * height, width - gap, height - gap);
    context.globalAlpha = 1;
    this.redraw();
  }

  #cellAt(event) {
    const { width, height } = this.#layout();
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - this.labelWidth) / width);
    const row = Math.floor((event.clientY - box.top) / height);
    return row >= 0 && row < this.rows && column >= 0 && column < this.columns ? [row, column] : null;
  }

  #point(cell) {
    this.#cursor = cell;
    this.redraw();
    if (!cell) return hideTip();
    const { width, height } = this.#layout();
    const box = this.canvas.getBoundingClientRect();
    showTip({ x: box.left + this.labelWidth + (cell[1] + 0.5) * width, y: box.top + cell[0] * height }, this.describe(...cell).map((line) => h("div", {}, line)));
  }

  #pickCell(cell) {
    if (cell && this.pick) this.pick(...cell);
  }

  #key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Enter" || event.key === " ") this.#pickCell(this.#cursor);
    else if (!step) return;
    else {
      const [row, column] = this.#cursor ?? [0, -step[1]];
      this.#point([Math.max(0, Math.min(this.rows - 1, row + step[0])), Math.max(0, Math.min(this.columns - 1, column + step[1]))]);
    }
    event.preventDefault();
  }
}
