// Builds elements without ever reading markup from a string.

const SVG = "http://www.w3.org/2000/svg";

function setProperty(element, name, value) {
  if (value === undefined || value === null || (value === false && !name.startsWith("aria-"))) return;
  if (name === "class") element.setAttribute("class", value);
  else if (name === "style") for (const [key, part] of Object.entries(value)) element.style.setProperty(key, part);
  else if (name === "data") Object.assign(element.dataset, value);
  else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "value" || name === "checked" || name === "open" || name === "indeterminate") element[name] = value;
  else element.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : String(value));
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** An HTML element. Properties: class, style (object), data (object), on<event>, and attributes; empty ones are left out. */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) if (name !== "value") setProperty(element, name, value);
  append(element, children);
  // A select takes its value only once it has its options.
  if (properties && "value" in properties) setProperty(element, "value", properties.value);
  return element;
}

/** An SVG element, the same way. */
export function svg(tag, properties, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties ?? {})) setProperty(element, name, value);
  return append(element, children);
}

/** Puts `children` in the place of everything in `element`. */
export function fill(element, ...children) {
  element.replaceChildren();
  return append(element, children);
}

/** The colour that a custom property stands for now, as `[r, g, b]`: canvases cannot read `var()`. */
export function themeColour(name) {
  const probe = h("span", { style: { color: `var(${name})`, display: "none" } });
  document.body.append(probe);
  const parts = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return parts.slice(0, 3);
}

/** Calls `work` at most once a frame and, where `gap` is given, once in so many milliseconds; the last call always counts. */
export function paced(work, gap = 0) {
  let waiting = false;
  let last = -Infinity;
  const run = () => {
    waiting = false;
    last = performance.now();
    work();
  };
  return () => {
    if (waiting) return;
    waiting = true;
    const rest = gap - (performance.now() - last);
    if (rest > 0) setTimeout(run, rest);
    else requestAnimationFrame(run);
  };
}
