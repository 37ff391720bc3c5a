// For a model without experts: says so, and how to get one that has them.

import { h } from "../dom.js";
import { icon } from "../icons.js";
import { copyText } from "../overlay.js";
import { t } from "../words.js";

// One comes with the project, one is trained by the reader, one is fetched.
const OFFERS = [
  { name: "shipped", commands: ["deepseek serve checkpoints/tiny-moe"] },
  { name: "smoke", commands: ["deepseek train recipes/smoke.toml", "deepseek serve runs/smoke/checkpoints/final"] },
  { name: "lite", commands: ["deepseek serve v2-lite-chat"] },
];

/** A command line with a button that copies it. */
export function command(text) {
  return h("div", { class: "command" }, h("pre", {}, h("code", {}, text)),
    h("button", { class: "icon-button", type: "button", "aria-label": t("copy"), title: t("copy"), onclick: () => copyText(text) }, icon("copy")));
}

export function denseNotice(model) {
  return h("section", { class: "panel empty", id: "dense" },
    h("h2", {}, model ? t("dense.title", { model: model.id }) : t("welcome.nomodel")),
    h("p", { class: "explain" }, t("dense.text")),
    OFFERS.map(({ name, commands }) => [h("h3", {}, t(`dense.${name}`)), h("p", { class: "explain" }, t(`dense.${name}.text`)), commands.map(command)]));
}
