// An answer token by token: the fainter its mark, the surer the model. The card shows what else it considered.

import { h } from "../dom.js";
import { hideTip, showTip } from "../overlay.js";
import { percent, t } from "../words.js";

/** A token's text with its white space to be seen. */
export function visibleText(text) {
  if (text === "") return "∅";
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ | $/g, "␣");
}

function candidates(token) {
  const rows = token.top.some(({ text }) => text === token.text) ? token.top : [token, ...token.top];
  return h("table", { class: "candidates" }, rows.map(({ text, logprob }) => {
    const share = Math.exp(logprob);
    return h("tr", { class: text === token.text ? "chosen" : "" },
      h("td", { class: "mono" }, visibleText(text)),
      h("td", {}, h("span", { class: "candidate-bar" }, h("span", { style: { width: `${Math.max(1, share * 100)}%` } }))),
      h("td", { class: "number" }, percent(share, 1)));
  }));
}

/** How doubtful the model was, 0 (sure) to 4: one class each, so that no style has to be written per token. */
function doubt(logprob) {
  if (logprob === null) return 0;
  const share = Math.exp(logprob);
  return share > 0.9 ? 0 : share > 0.6 ? 1 : share > 0.35 ? 2 : share > 0.12 ? 3 : 4;
}

/** One stop for the Tab key; arrow keys go from token to token. */
export function tokenView(tokens) {
  const box = h("div", { class: "token-view", role: "group", "aria-label": t("tokens.label") });
  const show = (element) => {
    const token = tokens[Number(element.dataset.place)];
    if (token && token.logprob !== null) showTip(element, candidates(token));
  };
  tokens.forEach((token, place) => {
    const class_ = `token doubt-${doubt(token.logprob)}${token.channel === "reasoning" ? " of-reasoning" : ""}`;
    const label = token.logprob === null ? token.text : `${token.text} ${percent(Math.exp(token.logprob), 1)}`;
    box.append(h("span", { class: class_, tabindex: place ? "-1" : "0", role: "note", "aria-label": label, data: { place } }, token.text.replaceAll("\n", "↵\n")));
  });
  box.addEventListener("pointerover", (event) => event.target.closest(".token") && show(event.target.closest(".token")));
  box.addEventListener("pointerleave", hideTip);
  box.addEventListener("focusin", (event) => show(event.target));
  box.addEventListener("focusout", hideTip);
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = step && box.querySelector(`[data-place="${Number(event.target.dataset.place) + step}"]`);
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  return box;
}
