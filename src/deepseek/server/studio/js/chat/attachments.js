// Text files that go with a message: read in the browser, sent as part of its text.

import { h } from "../dom.js";
import { icon } from "../icons.js";
import { number, t } from "../words.js";

export const MOST_BYTES = 200_000; // of one file
export const MOST_FILES = 10;

/** {name, text}. Throws Error with what is wrong, in the reader's words. */
export async function readAttachment(file) {
  if (file.size > MOST_BYTES) throw new Error(t("attach.large", { name: file.name, kilobytes: number(MOST_BYTES / 1000) }));
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error(t("attach.binary", { name: file.name }));
  }
  if (text.includes("\0")) throw new Error(t("attach.binary", { name: file.name }));
  return { name: file.name, text };
}

/** What the model reads: each file in a fence that nothing in it can close, then the message. */
export function withAttachments(content, files = []) {
  const parts = files.map(({ name, text }) => {
    const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
    const fence = "`".repeat(longest + 1);
    return `${name.replace(/[\r\n`]/g, " ")}:\n${fence}\n${text.replace(/\n$/, "")}\n${fence}`;
  });
  return [...parts, content].filter(Boolean).join("\n\n");
}

/** `remove(file)`: where the reader may take them away again. */
export function chips(files, remove = null) {
  return h("ul", { class: "chips", "aria-label": t("attachments") }, files.map((file) => h("li", { class: "chip" },
    icon("file"), h("span", { class: "chip-name", title: file.name }, file.name),
    h("span", { class: "weak number" }, t("attach.size", { count: number(file.text.length) })),
    remove && h("button", { class: "icon-button small", type: "button", "aria-label": t("attach.remove", { name: file.name }), onclick: () => remove(file) }, icon("close")))));
}

/** What is not a list of attachments is left out. */
export function checkedAttachments(files) {
  if (!Array.isArray(files)) return [];
  return files.slice(0, MOST_FILES).filter((file) => typeof file?.name === "string" && typeof file.text === "string").map(({ name, text }) => ({ name, text }));
}
