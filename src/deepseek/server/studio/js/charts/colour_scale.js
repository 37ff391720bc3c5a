// Numbers as colours that fit the theme.

import { themeColour } from "../dom.js";

const STEPS = 64;

function between(low, high, share) {
  return low.map((part, place) => Math.round(part + (high[place] - part) * share));
}

/** `colour(share)` for 0 to 1, as CSS text: from the page's quiet grey over the accent to the strongest tone. */
export function heatScale() {
  const [low, mid, high] = ["--heat-low", "--heat-mid", "--heat-high"].map(themeColour);
  const table = Array.from({ length: STEPS + 1 }, (_, step) => {
    const share = step / STEPS;
    const rgb = share < 0.5 ? between(low, mid, share * 2) : between(mid, high, share * 2 - 1);
    return `rgb(${rgb.join(" ")})`;
  });
  return (share) => table[Math.round(Math.max(0, Math.min(1, share)) * STEPS)];
}

/** A soft background for expert number `expert`: neighbours by number are far apart by hue. */
export function expertColour(expert, strength = 1) {
  const hue = (expert * 137.508) % 360;
  return `light-dark(oklch(${0.9 - 0.06 * strength} ${0.11 * strength} ${hue}), oklch(${0.36 + 0.06 * strength} ${0.1 * strength} ${hue}))`;
}
