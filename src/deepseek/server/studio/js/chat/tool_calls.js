// Calls of tools that a model asked for. The page runs none: the reader says what a call gave, and the model goes on.
//
// A call: {id, name, arguments (text, perhaps not yet whole), result (text, or null until the reader gave it)}

import { h } from "../dom.js";
import { icon } from "../icons.js";
import { t } from "../words.js";
import { colouredCode } from "./markdown.js";

/** Adds the parts of calls that a chunk brought. */
export function growCalls(calls, parts) {
  for (const { index = 0, id, function: part = {} } of parts) {
    calls[index] ??= { id: id ?? `call-${index}`, name: "", arguments: "", result: null };
    if (id) calls[index].id = id;
    calls[index].name += part.name ?? "";
    calls[index].arguments += part.arguments ?? "";
  }
}

/** The messages of the API that an answer with calls becomes. */
export function callMessages(node) {
  return [
    {
      role: "assistant", content: node.content,
      tool_calls: node.calls.map(({ id, name, arguments: text }) => ({ id, type: "function", function: { name, arguments: text } })),
    },
    ...node.calls.map(({ id, result }) => ({ role: "tool", tool_call_id: id, content: result ?? "" })),
  ];
}

export const isAnswered = (node) => Boolean(node.calls?.length) && node.calls.every(({ result }) => result !== null);

/** Why `text` is no list of tools, or null. */
export function toolsProblem(text) {
  if (!text.trim()) return null;
  try {
    const tools = JSON.parse(text);
    const fits = Array.isArray(tools) && tools.length > 0 && tools.every((tool) => tool?.type === "function" && typeof tool.function?.name === "string");
    return fits ? null : "[{\"type\": \"function\", \"function\": {\"name\": …}}]";
  } catch (error) {
    return error.message;
  }
}

function pretty(text) {
  try {
    return [JSON.stringify(JSON.parse(text), null, 2), "json"];
  } catch {
    return [text, ""]; // not whole yet, or no JSON
  }
}

/** `give(call, text)` is called with the result that the reader typed; null while the answer still comes. */
export function callCards(calls, give) {
  return h("div", { class: "calls" }, calls.map((call) => {
    const known = call.result !== null;
    return h("section", { class: "call", "aria-label": t("call.label", { name: call.name }) },
      h("header", { class: "call-head" }, icon("tool"), h("strong", { class: "mono" }, call.name), h("span", { class: "weak" }, t(known ? "call.done" : give ? "call.waiting" : "call.coming"))),
      h("pre", { class: "call-arguments", tabindex: "0", "aria-label": t("call.arguments") }, colouredCode(...pretty(call.arguments))),
      known && h("details", { class: "call-result" }, h("summary", {}, t("call.result")), h("pre", { tabindex: "0" }, colouredCode(...pretty(call.result)))),
      !known && give && resultField(call, give));
  }));
}

function resultField(call, give) {
  const field = h("textarea", { class: "code", rows: "2", spellcheck: "false", "aria-label": t("call.result.of", { name: call.name }), placeholder: t("call.placeholder"), value: call.draft ?? "" });
  // Kept while the cards are drawn anew.
  field.addEventListener("input", () => Object.defineProperty(call, "draft", { value: field.value, configurable: true, writable: true }));
  const send = () => give(call, field.value);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
  });
  return h("div", { class: "call-give" }, field, h("button", { class: "button small primary", type: "button", onclick: send }, t("call.give")));
}

/** What is not a list of calls is left out. */
export function checkedCalls(calls) {
  const isText = (value) => typeof value === "string";
  if (!Array.isArray(calls) || !calls.every((call) => isText(call?.id) && isText(call.name) && isText(call.arguments))) return [];
  return calls.map(({ id, name, arguments: text, result }) => ({ id, name, arguments: text, result: isText(result) ? result : null }));
}
