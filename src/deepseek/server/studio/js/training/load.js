// Loads of experts as a log records them, checked: what stands in a file may be anything.

const MOST_EXPERTS = 4096; // of a layer, and layers of a model: more is no model but a mischief
const MOST_LAYERS = 1024;

/** `value` if it is a finite number, else null. */
export function finite(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** {step, tokens, layers: [{layer, load, maxVio, dropped, capacity}]} of a line of the log; null without loads. */
export function loadFrame(line) {
  if (!Array.isArray(line.layers) || !line.layers.length || line.layers.length > MOST_LAYERS) return null;
  const layers = line.layers.map((told) => {
    const load = Array.isArray(told?.load_e) && told.load_e.length <= MOST_EXPERTS ? told.load_e.map((share) => Math.max(0, finite(share) ?? 0)) : [];
    return {
      layer: finite(told?.layer) ?? 0, load, maxVio: finite(told?.max_violation) ?? maxVio(load),
      dropped: finite(told?.dropped) ?? 0, capacity: finite(told?.capacity),
    };
  });
  const experts = layers[0].load.length;
  if (!experts || layers.some(({ load }) => load.length !== experts)) return null;
  return { step: line.step, tokens: finite(line.tokens), layers };
}

/** Largest load over the mean load, less 1. */
export function maxVio(load) {
  const sum = load.reduce((a, b) => a + b, 0);
  return sum > 0 ? (Math.max(...load) * load.length) / sum - 1 : 0;
}

export function sameShape(one, other) {
  return one.layers.length === other.layers.length && one.layers[0].load.length === other.layers[0].load.length;
}

/** At most `most` of `all`, evenly spread, the last among them: [{place, item}]. */
export function spread(all, most) {
  const count = Math.min(most, all.length);
  return Array.from({ length: count }, (_, each) => {
    const place = Math.ceil(((each + 1) * all.length) / count) - 1;
    return { place, item: all[place] };
  });
}
