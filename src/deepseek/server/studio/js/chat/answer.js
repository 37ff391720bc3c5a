// Fills a node with an answer while it comes, and says in `status` how it ended.
//
// "streaming" -> "done" | "stopped" (by the reader) | "lost" (the server went away) | "refused" (it said no: `error`)

import { modelNamed } from "../api/models.js";
import { streamChat } from "../api/generation.js";
import { ConnectionLost } from "../api/server.js";
import { chatBody } from "./request.js";
import { growCalls } from "./tool_calls.js";

function begin(node, partial) {
  node.status = "streaming";
  node.error = null;
  node.finish = null;
  if (!partial) Object.assign(node, { content: "", reasoning: "", tokens: [], calls: [] });
  node.tokens ??= [];
  // A part that was edited has no tokens of its own: the rest of it would stand alone in the token view.
  if (partial && !node.tokens.length) node.tokens.push({ text: node.content, logprob: null, top: [], channel: "content" });
}

function add(node, piece, clock) {
  if (piece.reasoning || piece.content || piece.calls.length) {
    clock.first ??= performance.now();
    clock.last = performance.now();
  }
  node.reasoning += piece.reasoning;
  node.content += piece.content;
  if (piece.calls.length) growCalls((node.calls ??= []), piece.calls);
  for (const { text, logprob, top, channel } of piece.tokens) node.tokens.push({ text, logprob, top, channel });
  if (piece.finish) node.finish = piece.finish;
  if (piece.usage) node.usage = piece.usage;
  clock.tokens += piece.tokens.length || (piece.reasoning || piece.content ? 1 : 0);
  node.timing = {
    first: clock.first === null ? null : (clock.first - clock.start) / 1000,
    seconds: clock.last === null ? null : (clock.last - clock.first) / 1000,
    tokens: piece.usage?.completion_tokens ?? clock.tokens,
  };
}

function end(node, error) {
  if (!error) node.status = "done";
  else if (error.name === "AbortError") node.status = "stopped";
  else if (error instanceof ConnectionLost) node.status = "lost";
  else {
    node.status = "refused";
    node.error = { status: error.status ?? null, message: error.message, parameter: error.parameter ?? null };
  }
}

/** Never throws: whatever came stays in the node. `changed` is called after every piece. */
export async function answerInto(node, path, { partial, log, signal, changed }) {
  const clock = { start: performance.now(), first: null, last: null, tokens: 0 };
  begin(node, partial);
  try {
    const settings = { ...node.settings, model: node.settings.model ?? modelNamed(null)?.id };
    node.model = settings.model;
    log.body = chatBody(settings, path, { partial });
    for await (const piece of streamChat(log.body, signal)) {
      log.chunks.push(piece.chunk);
      add(node, piece, clock);
      changed();
    }
    end(node, null);
  } catch (error) {
    end(node, error);
  }
}
