// TeX in answers. Markdown would take its backslashes and underscores apart, so it is set aside while Markdown is read.
// KaTeX is loaded when the first formula appears; until then, and where it cannot read one, the source is shown.

import { h } from "../dom.js";

const LONGEST = 5000; // characters; longer ones would hold up the page
const LIBRARY = new URL("../../vendor/katex/", import.meta.url);
// No links, images or styles from the model (trust); sizes and macros that cannot grow without end.
const OPTIONS = { trust: false, strict: "ignore", throwOnError: true, maxSize: 40, maxExpand: 300, macros: { "\\pmb": "\\boldsymbol" } };

let katex = null;
let loading = null;

async function load() {
  document.head.append(h("link", { rel: "stylesheet", href: new URL("katex.min.css", LIBRARY).href }));
  await import(new URL("katex.min.js", LIBRARY).href);
  katex = globalThis.katex;
}

const escaped = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

function extension(name, level, opening, pattern) {
  return {
    name,
    level,
    start: (source) => source.match(opening)?.index,
    tokenizer(source) {
      const found = source.match(pattern);
      return found ? { type: name, raw: found[0], text: found[1] ?? found[2] } : undefined;
    },
    renderer: ({ raw, text }) => {
      const kind = name === "inlineFormula" ? "tex" : "tex-block";
      const span = `<span class="${kind}" title="${escaped(text)}">${escaped(raw.trim())}</span>`;
      return level === "block" ? `<p>${span}</p>` : span;
    },
  };
}

/** For Marked. `$` begins a formula only where prices do not: no space after it, none before its end, no digit behind. */
export const FORMULAS = {
  extensions: [
    extension("displayFormula", "block", /\$\$|\\\[/, /^ {0,3}(?:\$\$([^$]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/),
    extension("innerFormula", "inline", /\$\$|\\\[/, /^(?:\$\$([^$\n]+?)\$\$|\\\[([^\n]+?)\\\])/),
    extension("inlineFormula", "inline", /\$|\\\(/, /^(?:\$(?!\s|\$)((?:\\.|[^\\$\n])+?)(?<!\s)\$(?![\d$])|\\\(([\s\S]+?)\\\))/),
  ],
};

function set(element) {
  const source = element.title;
  element.removeAttribute("title");
  const shown = document.createElement("span");
  try {
    katex.render(source, shown, { ...OPTIONS, displayMode: element.className === "tex-block" });
  } catch (error) {
    element.className = `${element.className} problem`;
    element.title = error.message;
    return;
  }
  element.replaceChildren(...shown.childNodes);
}

/** Sets what `FORMULAS` marked in a fragment; gives back the elements that are ours from now on. */
export function dressFormulas(fragment) {
  const elements = [...fragment.querySelectorAll("span.tex, span.tex-block")].filter((element) => element.title && element.title.length <= LONGEST);
  if (!elements.length) return elements;
  if (katex) elements.forEach(set);
  else {
    loading ??= load().catch(() => (loading = null)); // the next formula tries again
    loading.then(() => katex && elements.forEach(set));
  }
  return elements;
}
