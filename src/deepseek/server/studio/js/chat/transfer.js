// Conversations to a file and back.

import { addNode, checkedConversation, newConversation } from "./conversation.js";
import { DEFAULT_SETTINGS } from "./request.js";

const FORMAT = "deepseek-studio";

export function exportText(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, exported: new Date().toISOString(), conversations }, null, 2);
}

function fromMessages(messages) {
  const conversation = newConversation(DEFAULT_SETTINGS);
  let parent = null;
  for (const { role, content } of messages) {
    if (typeof content !== "string") throw new Error("message content");
    if (role === "system") conversation.panes[0].settings.system = content;
    else if (role === "user" || role === "assistant") {
      parent = addNode(conversation, parent, role === "user" ? { role, content } : { role, content, status: "done" }).id;
    } else throw new Error(`role ${role}`);
  }
  conversation.panes[0].leaf = parent;
  return conversation;
}

/** Reads our own export, or any `{messages: [{role, content}]}`. Throws Error with what is wrong. */
export function importText(text) {
  const told = JSON.parse(text);
  if (Array.isArray(told?.messages)) return [fromMessages(told.messages)];
  if (told?.format !== FORMAT || !Array.isArray(told.conversations)) throw new Error(`format is not "${FORMAT}"`);
  if (told.version !== 1) throw new Error(`version ${told.version}`);
  return told.conversations.map((conversation) => checkedConversation(conversation));
}

export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Asks for files; their texts. */
export function pickFiles() {
  return new Promise((resolve) => {
    const input = document.createElement("input");
    input.type = "file";
    input.accept = "application/json,.json";
    input.multiple = true;
    input.addEventListener("change", async () => resolve(await Promise.all([...input.files].map((file) => file.text()))));
    input.addEventListener("cancel", () => resolve([]));
    input.click();
  });
}
