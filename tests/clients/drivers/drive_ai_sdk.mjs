// Vercel's AI SDK with the providers openai-compatible, openai (responses and chat) and anthropic.
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embedMany, generateText, isStepCount, Output, streamText, tool } from 'ai';
import { z } from 'zod';
import { API_KEY, API_URL, MODEL, assert, check } from './checks.mjs';

const compatible = createOpenAICompatible({ name: 'local', baseURL: API_URL, apiKey: API_KEY });
const structured = createOpenAICompatible({
  name: 'local', baseURL: API_URL, apiKey: API_KEY, supportsStructuredOutputs: true, includeUsage: true,
});
const openai = createOpenAI({ baseURL: API_URL, apiKey: API_KEY });
const anthropic = createAnthropic({ baseURL: API_URL, apiKey: API_KEY });
const schema = z.object({ name: z.string(), age: z.number() });
const tools = {
  get_weather: tool({
    description: 'The weather in a city.',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => ({ text: `It is sunny in ${city}.` }),
  }),
};
const once = { maxRetries: 0, maxOutputTokens: 60 };
const models = {
  compatible: compatible(MODEL),
  structured: structured(MODEL),
  responses: openai(MODEL),
  chat: openai.chat(MODEL),
  anthropic: anthropic(MODEL),
};

for (const [name, model] of Object.entries(models)) {
  await check(`${name}_text_and_history`, async () => {
    const messages = [{ role: 'user', content: 'My name is Bob.' }];
    const first = await generateText({ model, ...once, system: 'Be brief.', messages });
    messages.push(...first.response.messages, { role: 'user', content: 'What is my name?' });
    assert((await generateText({ model, ...once, messages })).text, 'no text');
  });
  await check(`${name}_stream`, async () => {
    let failure;
    const result = streamText({ model, ...once, prompt: 'Count to five.', onError: ({ error }) => (failure = error) });
    let text = '';
    for await (const delta of result.textStream) text += delta;
    if (failure) throw failure;
    assert(text, 'no text');
  });
  await check(`${name}_tools`, async () => {
    const prompt = 'What is the weather in Paris? Use the tool.';
    await generateText({ model, ...once, tools, stopWhen: isStepCount(3), prompt });
    const forced = await generateText({
      model, ...once, tools, toolChoice: { type: 'tool', toolName: 'get_weather' }, stopWhen: isStepCount(2), prompt,
    });
    assert(forced.steps[0].toolCalls.length === 1, 'no call');
  });
  await check(`${name}_object`, async () => {
    const prompt = 'Bob is 30 years old. Who is it? Answer with a JSON object with the keys name and age.';
    const result = await generateText({ model, ...once, output: Output.object({ schema }), prompt });
    assert(typeof result.output.name === 'string', 'no object');
  });
}

await check('embeddings', async () => {
  for (const model of [compatible.embeddingModel(MODEL), openai.embedding(MODEL)]) {
    assert((await embedMany({ model, values: ['a cat', 'a dog'], maxRetries: 0 })).embeddings.length === 2, 'no vectors');
  }
});
