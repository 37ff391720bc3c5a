// Model output as formatted text. It is hostile: HTML in it is shown as text, and what Markdown makes is sanitised before
// it becomes part of the page. Nothing in it loads anything from anywhere.

import DOMPurify from "../../vendor/dompurify/purify.es.js";
import hljs from "../../vendor/highlight/core.min.js";
import { Marked } from "../../vendor/marked/marked.esm.js";
import bash from "../../vendor/highlight/languages/bash.min.js";
import c from "../../vendor/highlight/languages/c.min.js";
import cpp from "../../vendor/highlight/languages/cpp.min.js";
import css from "../../vendor/highlight/languages/css.min.js";
import diff from "../../vendor/highlight/languages/diff.min.js";
import go from "../../vendor/highlight/languages/go.min.js";
import java from "../../vendor/highlight/languages/java.min.js";
import javascript from "../../vendor/highlight/languages/javascript.min.js";
import json from "../../vendor/highlight/languages/json.min.js";
import markdown from "../../vendor/highlight/languages/markdown.min.js";
import python from "../../vendor/highlight/languages/python.min.js";
import rust from "../../vendor/highlight/languages/rust.min.js";
import sql from "../../vendor/highlight/languages/sql.min.js";
import typescript from "../../vendor/highlight/languages/typescript.min.js";
import xml from "../../vendor/highlight/languages/xml.min.js";
import yaml from "../../vendor/highlight/languages/yaml.min.js";
import { h } from "../dom.js";
import { icon } from "../icons.js";
import { copyText } from "../overlay.js";
import { t } from "../words.js";
import { dressFormulas, FORMULAS } from "./formulas.js";

const LANGUAGES = { bash, c, cpp, css, diff, go, java, javascript, json, markdown, python, rust, sql, typescript, xml, yaml };
for (const [name, language] of Object.entries(LANGUAGES)) hljs.registerLanguage(name, language);

const LONGEST_COLOURED = 40_000; // characters; colouring longer code would hold up the page

const escaped = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: false,
  renderer: {
    html: ({ text, block }) => (block ? `<p>${escaped(text.trim())}</p>` : escaped(text)),
    // An image would be fetched from an address that the model chose, which can carry what it read.
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
  },
});

marked.use(FORMULAS);

const ALLOWED = {
  ALLOWED_TAGS: [
    "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li",
    "a", "table", "thead", "tbody", "tr", "th", "td", "span", "input",
  ],
  ALLOWED_ATTR: ["href", "title", "class", "start", "align", "type", "checked", "disabled"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

function fragmentOf(markup) {
  return DOMPurify.sanitize(markup, ALLOWED);
}

/** The same text, with the spans that colour it where `language` is known. */
export function colouredCode(text, language) {
  const code = h("code", {}, text);
  if (!hljs.getLanguage(language ?? "") || text.length > LONGEST_COLOURED) return code;
  code.replaceChildren(fragmentOf(hljs.highlight(text, { language, ignoreIllegals: true }).value));
  return code;
}

function dressCode(pre) {
  const plain = pre.querySelector("code");
  if (!plain) return;
  const language = plain.className.match(/language-([\w+#-]+)/)?.[1] ?? "";
  const text = plain.textContent.replace(/\n$/, "");
  const block = h("div", { class: "code-block" },
    h("div", { class: "code-head" },
      h("span", {}, language || t("code")),
      h("button", { class: "icon-button small", type: "button", "aria-label": t("copy.code"), onclick: () => copyText(text) },
        icon("copy"), h("span", {}, t("copy")))),
    h("pre", { tabindex: "0" }, colouredCode(text, language)));
  pre.replaceWith(block);
}

/** A fragment of safe elements. */
export function rendered(text) {
  const fragment = fragmentOf(marked.parse(text));
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const field of fragment.querySelectorAll("input")) {
    if (field.type === "checkbox") field.disabled = true;
    else field.remove();
  }
  const formulas = new Set(dressFormulas(fragment));
  for (const element of fragment.querySelectorAll("[class]")) {
    if (element.closest(".tex, .tex-block") && formulas.has(element.closest(".tex, .tex-block"))) continue;
    if (!/^language-[\w+#-]+$/.test(element.className)) element.removeAttribute("class");
  }
  for (const table of fragment.querySelectorAll("table")) {
    const box = h("div", { class: "table-box", tabindex: "0" });
    table.replaceWith(box);
    box.append(table);
  }
  fragment.querySelectorAll("pre").forEach(dressCode);
  return fragment;
}
