// Counting which experts were used, and what the counts say.

/** How often, and with how much weight, each expert of each layer was chosen. */
export class ExpertCounts {
  constructor({ layers, experts }) {
    this.rows = layers.length;
    this.experts = experts;
    this.tokens = 0;
    this.times = new Float64Array(this.rows * experts);
    this.weight = new Float64Array(this.rows * experts);
  }

  /** layers: of one token, `[{ids, weights}]`. */
  add(layers) {
    this.tokens += 1;
    layers.forEach(({ ids, weights }, row) => ids.forEach((expert, place) => {
      this.times[row * this.experts + expert] += 1;
      this.weight[row * this.experts + expert] += weights[place];
    }));
  }

  row(row, measure = "times") {
    return [...this[measure].subarray(row * this.experts, (row + 1) * this.experts)];
  }

  /** Each row divided by its sum: rows x experts, shares of the layer's work. */
  shares(measure = "times") {
    const shares = new Float64Array(this[measure]);
    for (let row = 0; row < this.rows; row += 1) {
      const part = shares.subarray(row * this.experts, (row + 1) * this.experts);
      const sum = part.reduce((a, b) => a + b, 0);
      if (sum) part.forEach((value, place) => (part[place] = value / sum));
    }
    return shares;
  }
}

/**
 * entropy: of the loads, as a share of its largest value: 1 is even. gini: 0 is even, near 1 is one expert for all.
 * maxVio: how far the busiest expert lies above the mean, in means. idle: share of experts without any work.
 */
export function balance(loads) {
  const sum = loads.reduce((a, b) => a + b, 0);
  if (!sum) return { entropy: null, gini: null, maxVio: null, idle: null };
  const count = loads.length;
  const entropy = -loads.reduce((total, load) => total + (load ? (load / sum) * Math.log(load / sum) : 0), 0) / Math.log(count);
  const sorted = [...loads].sort((a, b) => a - b);
  const gini = sorted.reduce((total, load, place) => total + (2 * (place + 1) - count - 1) * load, 0) / (count * sum);
  return { entropy, gini, maxVio: Math.max(...loads) / (sum / count) - 1, idle: loads.filter((load) => !load).length / count };
}

/** experts x experts: how often two were chosen for the same token of layer `row`; the diagonal is left empty. */
export function coactivation(tokens, row, experts) {
  const together = new Float64Array(experts * experts);
  for (const layers of tokens) {
    const ids = layers[row].ids;
    for (const one of ids) for (const other of ids) if (one !== other) together[one * experts + other] += 1;
  }
  return together;
}

/** 1: the same experts in the same shares, 0: none in common. Averaged over layers. */
export function likeness(one, other) {
  let total = 0;
  for (let row = 0; row < one.rows; row += 1) {
    const [a, b] = [one.row(row), other.row(row)];
    const dot = (x, y) => x.reduce((sum, value, place) => sum + value * y[place], 0);
    total += dot(a, b) / (Math.sqrt(dot(a, a) * dot(b, b)) || 1);
  }
  return total / one.rows;
}

/** The `most` cells that kind `place` uses furthest above the mean of the other kinds: [{row, expert, share, others}]. */
export function particular(kinds, place, most) {
  const shares = kinds.map((counts) => counts.shares());
  const cells = [];
  for (let cell = 0; cell < shares[0].length; cell += 1) {
    const others = shares.reduce((sum, share, kind) => sum + (kind === place ? 0 : share[cell]), 0) / Math.max(1, kinds.length - 1);
    cells.push({ row: Math.floor(cell / kinds[0].experts), expert: cell % kinds[0].experts, share: shares[place][cell], others });
  }
  return cells.sort((a, b) => b.share - b.others - (a.share - a.others)).slice(0, most);
}
