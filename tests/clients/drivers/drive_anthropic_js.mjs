// The official JavaScript package `@anthropic-ai/sdk`: messages, stream, tool runner, counting.
import Anthropic from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { z } from 'zod';
import { API_KEY, BASE_URL, MODEL, assert, check } from './checks.mjs';

const client = new Anthropic({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });
const asked = (content) => [{ role: 'user', content }];

await check('models', async () => {
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  assert(models.includes(MODEL), 'the model is not listed');
});

await check('count_tokens', async () => {
  const count = await client.messages.countTokens({ model: MODEL, messages: asked('Hello!') });
  assert(count.input_tokens > 2, 'no tokens');
});

await check('messages_with_history', async () => {
  const messages = asked('My name is Bob.');
  const first = await client.messages.create({ model: MODEL, messages, max_tokens: 20 });
  messages.push({ role: 'assistant', content: first.content }, { role: 'user', content: 'What is my name?' });
  const second = await client.messages.create({ model: MODEL, messages, max_tokens: 20 });
  assert(second.content[0].text, 'no text');
  assert(second._request_id, 'no request id');
});

await check('stream', async () => {
  const stream = client.messages.stream({ model: MODEL, messages: asked('Count to five.'), max_tokens: 20 });
  let text = '';
  stream.on('text', (delta) => (text += delta));
  const message = await stream.finalMessage();
  assert(text && message.usage.output_tokens, 'no text');
});

await check('tool_runner', async () => {
  const runner = client.beta.messages.toolRunner({
    model: MODEL,
    messages: asked('What is the weather in Paris? Use the tool.'),
    max_tokens: 60,
    max_iterations: 3,
    tools: [
      betaZodTool({
        name: 'get_weather',
        description: 'The weather in a city.',
        inputSchema: z.object({ city: z.string() }),
        run: ({ city }) => `It is sunny in ${city}.`,
      }),
    ],
  });
  const message = await runner;
  assert(message.content.length > 0, 'no content');
});

await check('parse', async () => {
  const message = await client.messages.parse({
    model: MODEL,
    messages: asked('Bob is 30 years old. Who is it?'),
    output_config: { format: zodOutputFormat(z.object({ name: z.string(), age: z.number() })) },
    max_tokens: 60,
  });
  assert(message.parsed_output, 'not parsed');
});
