// What was sent and what came back, to read and to copy.

import { fill, h } from "../dom.js";
import { icon } from "../icons.js";
import { copyText, openDialog } from "../overlay.js";
import { number, t } from "../words.js";
import { pathTo } from "./conversation.js";
import { colouredCode } from "./markdown.js";
import { chatBody, curlOf } from "./request.js";

const MOST_CHUNKS = 400;

function response(node, chunks) {
  const told = {
    model: node.model, status: node.status, finish_reason: node.finish, error: node.error ?? undefined,
    message: { role: "assistant", content: node.content, ...(node.reasoning ? { reasoning_content: node.reasoning } : {}) },
    usage: node.usage ?? null, timing: node.timing ?? null, chunks: chunks?.length,
  };
  return JSON.stringify(told, null, 2);
}

/** The body as it was sent; of an answer from before the page was opened, the body that its settings make. */
function bodyOf(session, node) {
  return session.requests.get(node.id)?.body ?? chatBody({ ...node.settings, model: node.model }, pathTo(session.current, node.parent));
}

export function openInspector(session, node) {
  const body = bodyOf(session, node);
  const chunks = session.requests.get(node.id)?.chunks;
  const views = {
    request: () => [JSON.stringify(body, null, 2), "json"],
    curl: () => [curlOf(body), "bash"],
    response: () => [response(node, chunks), "json"],
    ...(chunks?.length && {
      stream: () => [chunks.slice(0, MOST_CHUNKS).map((chunk) => `data: ${JSON.stringify(chunk)}`).join("\n")
        + (chunks.length > MOST_CHUNKS ? `\n… ${number(chunks.length - MOST_CHUNKS)}` : ""), ""],
    }),
  };
  openDialog(t("inspect"), () => {
    const shown = h("pre", { class: "inspected", tabindex: "0" });
    const tabs = h("div", { class: "segments", role: "tablist" });
    let text = "";
    const show = (name) => {
      const [content, language] = views[name]();
      text = content;
      fill(shown, colouredCode(content, language));
      for (const tab of tabs.children) tab.setAttribute("aria-selected", tab.dataset.name === name);
    };
    for (const name of Object.keys(views)) {
      tabs.append(h("button", { type: "button", role: "tab", data: { name }, onclick: () => show(name) }, t(`inspect.${name}`)));
    }
    show("request");
    return [
      h("div", { class: "inspect-bar" }, tabs,
        h("button", { class: "button small", type: "button", onclick: () => copyText(text) }, icon("copy"), t("copy"))),
      shown,
    ];
  });
}
