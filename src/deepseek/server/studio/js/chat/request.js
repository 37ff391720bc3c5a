// From settings and messages to the body of a request, and to the `curl` line that sends the same.

import { apiKey, apiUrl } from "../api/server.js";
import { withAttachments } from "./attachments.js";
import { callMessages, toolsProblem } from "./tool_calls.js";

/** What a new conversation starts with. null: the server's default, and the field is not sent. */
export const DEFAULT_SETTINGS = Object.freeze({
  model: null, system: "", temperature: null, top_p: null, top_k: null, min_p: null, max_tokens: null, thinking_budget: null,
  seed: null, stop: "", schema: "", tools: "", probabilities: true,
});

/** open: more than the slider's end may be typed. */
export const NUMBERS = [
  { name: "temperature", min: 0, max: 2, step: 0.05, usual: 0.7 },
  { name: "top_p", min: 0, max: 1, step: 0.01, usual: 0.95 },
  { name: "top_k", min: 0, max: 200, step: 1, usual: 40 },
  { name: "min_p", min: 0, max: 1, step: 0.01, usual: 0.05 },
  { name: "max_tokens", min: 1, max: 4096, step: 1, usual: 512, open: true },
  { name: "thinking_budget", min: 0, max: 4096, step: 1, usual: 512, open: true },
];

/** Why `settings.schema` cannot be sent, or null. */
export function schemaProblem(text) {
  if (!text.trim()) return null;
  try {
    const schema = JSON.parse(text);
    return typeof schema === "object" && schema !== null && !Array.isArray(schema) ? null : "object";
  } catch (error) {
    return error.message;
  }
}

/** `\n` and `\t` as people type them, one stop string a line. */
export function stopStrings(text) {
  return text.split("\n").filter((line) => line !== "").map((line) => line.replace(/\\n/g, "\n").replace(/\\t/g, "\t"));
}

function messagesOf(node, partial) {
  const { role, content, reasoning, files, calls } = node;
  if (role === "user") return [{ role, content: withAttachments(content, files) }];
  if (calls?.length) return callMessages(node);
  return [partial && reasoning && !content ? { role, content: "", reasoning_content: reasoning } : { role, content }];
}

/** `path`: nodes from the root on. `partial`: its last one is an answer that the model should go on with. */
export function chatBody(settings, path, { partial = false } = {}) {
  const messages = path.flatMap((node, place) => messagesOf(node, partial && place === path.length - 1));
  if (settings.system?.trim()) messages.unshift({ role: "system", content: settings.system });
  const body = { model: settings.model, messages, stream: true, stream_options: { include_usage: true } };
  for (const { name } of NUMBERS) if (settings[name] !== null && settings[name] !== undefined) body[name] = settings[name];
  if (settings.seed !== null && settings.seed !== undefined) body.seed = settings.seed;
  const stop = stopStrings(settings.stop ?? "");
  if (stop.length) body.stop = stop;
  if (settings.schema?.trim() && !schemaProblem(settings.schema)) {
    body.response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema: JSON.parse(settings.schema) } };
  }
  if (settings.tools?.trim() && !toolsProblem(settings.tools)) body.tools = JSON.parse(settings.tools);
  if (settings.probabilities !== false) Object.assign(body, { logprobs: true, top_logprobs: 5 });
  if (partial) Object.assign(body, { continue_final_message: true, add_generation_prompt: false });
  return body;
}

/** For a POSIX shell; the key stays out of it. */
export function curlOf(body) {
  const quoted = `'${JSON.stringify(body, null, 2).replaceAll("'", "'\\''")}'`;
  const key = apiKey() ? ` \\\n  -H "Authorization: Bearer $DEEPSEEK_API_KEY"` : "";
  return `curl -N ${apiUrl("v1/chat/completions")} \\\n  -H "Content-Type: application/json"${key} \\\n  -d ${quoted}`;
}
