// The official JavaScript package `openai`: chat, stream, tool runner, structured output, responses, embeddings.
import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { API_KEY, API_URL, MODEL, assert, check } from './checks.mjs';

const client = new OpenAI({ baseURL: API_URL, apiKey: API_KEY, maxRetries: 0 });
const Person = z.object({ name: z.string(), age: z.number() });
const asked = (content) => [{ role: 'user', content }];

await check('models', async () => {
  const models = await client.models.list();
  assert(models.data.some((model) => model.id === MODEL), 'the model is not listed');
});

await check('chat_with_history', async () => {
  const messages = asked('My name is Bob.');
  const first = await client.chat.completions.create({ model: MODEL, messages, max_tokens: 20 });
  messages.push(first.choices[0].message, { role: 'user', content: 'What is my name?' });
  const second = await client.chat.completions.create({ model: MODEL, messages, max_tokens: 20 });
  assert(second.choices[0].message.content, 'no content');
});

await check('stream', async () => {
  const stream = client.chat.completions.stream({ model: MODEL, messages: asked('Count to five.'), max_tokens: 20 });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? '';
  assert(text && (await stream.finalContent()) === text, 'no content');
});

await check('tool_runner', async () => {
  const runner = client.chat.completions.runTools({
    model: MODEL,
    messages: asked('What is the weather in Paris? Use the tool.'),
    max_tokens: 60,
    tools: [
      {
        type: 'function',
        function: {
          name: 'get_weather',
          description: 'The weather in a city.',
          parse: JSON.parse,
          function: ({ city }) => `It is sunny in ${city}.`,
          parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
        },
      },
    ],
  });
  await runner.done();
});

await check('parse', async () => {
  const answer = await client.chat.completions.parse({
    model: MODEL,
    messages: asked('Bob is 30 years old. Who is it?'),
    response_format: zodResponseFormat(Person, 'person'),
    max_tokens: 60,
  });
  assert(answer.choices[0].message.parsed, 'not parsed');
});

await check('embeddings', async () => {
  const answer = await client.embeddings.create({ model: MODEL, input: ['a cat', 'a dog'] });
  assert(answer.data.length === 2 && answer.data[0].embedding.length > 8, 'no vectors');
});

await check('responses_with_history', async () => {
  const first = await client.responses.create({ model: MODEL, input: 'Hello!', max_output_tokens: 20 });
  assert(first.output_text, 'no text');
  const input = [...asked('Hello!'), ...first.output, ...asked('Who are you?')];
  const second = await client.responses.create({ model: MODEL, input, max_output_tokens: 20 });
  assert(second.output_text, 'no text');
});

await check('responses_stream', async () => {
  const stream = client.responses.stream({ model: MODEL, input: 'Count to five.', max_output_tokens: 20 });
  let text = '';
  for await (const event of stream) if (event.type === 'response.output_text.delta') text += event.delta;
  assert(text && (await stream.finalResponse()).output_text, 'no text');
});

await check('responses_parse', async () => {
  const answer = await client.responses.parse({
    model: MODEL,
    input: 'Bob is 30 years old. Who is it?',
    text: { format: zodTextFormat(Person, 'person') },
    max_output_tokens: 60,
  });
  assert(answer.output_parsed, 'not parsed');
});
