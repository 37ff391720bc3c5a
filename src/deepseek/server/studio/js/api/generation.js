// One answer from /v1/chat/completions or /v1/completions, as pieces while it comes.

import { ApiError, ConnectionLost, request } from "./server.js";
import { eventData } from "./event_stream.js";
import { choiceRouting } from "./routing.js";

function tokensOf(choice, channel, field) {
  return (choice.logprobs?.[field] ?? []).map(({ token, logprob, top_logprobs: top }) => ({
    text: token, logprob, channel, top: (top ?? []).map((other) => ({ text: other.token, logprob: other.logprob })),
  }));
}

/** A chunk's first choice in our words: what to add, its tokens and experts, and what ended the answer, if anything. */
export function pieceOf(chunk) {
  const choice = chunk.choices?.[0] ?? {};
  const reasoning = choice.delta?.reasoning_content ?? "";
  const content = choice.delta?.content ?? "";
  return {
    reasoning,
    content,
    calls: choice.delta?.tool_calls ?? [],
    tokens: [...tokensOf(choice, "reasoning", "reasoning_content"), ...tokensOf(choice, "content", "content")],
    routing: choiceRouting(choice),
    finish: choice.finish_reason ?? null,
    usage: chunk.usage ?? null,
    chunk,
  };
}

/** The same of a chunk of /v1/completions. */
function textPieceOf(chunk) {
  const choice = chunk.choices?.[0] ?? {};
  const { tokens = [], token_logprobs: logprobs = [] } = choice.logprobs ?? {};
  return {
    reasoning: "",
    content: choice.text ?? "",
    calls: [],
    tokens: tokens.map((text, place) => ({ text, logprob: logprobs[place], channel: "content", top: [] })),
    routing: choiceRouting(choice),
    finish: choice.finish_reason ?? null,
    usage: chunk.usage ?? null,
    chunk,
  };
}

/** Yields pieces until the server says [DONE]. Throws ApiError, ConnectionLost, or AbortError when `signal` ends it. */
export function streamChat(body, signal) {
  return pieces("v1/chat/completions", body, signal, pieceOf);
}

/** The same where the model goes on with a text, which also a model without a chat template can. */
export function streamText(body, signal) {
  return pieces("v1/completions", body, signal, textPieceOf);
}

async function* pieces(path, body, signal, read) {
  const response = await request(path, { method: "POST", body, signal });
  let finished = false;
  try {
    for await (const data of eventData(response.body)) {
      if (data === "[DONE]") {
        finished = true; // and read on to the end: leaving now would look like a broken connection to the server
        continue;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.code ?? 500, chunk.error.message ?? String(chunk.error));
      yield read(chunk);
    }
  } catch (error) {
    if (signal?.aborted) throw new DOMException("stopped", "AbortError");
    throw error instanceof ApiError ? error : new ConnectionLost();
  }
  if (!finished) throw new ConnectionLost();
}
