// LangChain for JavaScript: ChatOpenAI over both APIs, an agent, structured output, embeddings.
import { createAgent, tool } from 'langchain';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { z } from 'zod';
import { API_KEY, API_URL, MODEL, assert, check } from './checks.mjs';

const fields = { model: MODEL, apiKey: API_KEY, configuration: { baseURL: API_URL }, maxRetries: 0, maxTokens: 60 };
const Person = z.object({ name: z.string(), age: z.number() }).describe('A person.');
const weather = tool(({ city }) => `It is sunny in ${city}.`, {
  name: 'get_weather',
  description: 'The weather in a city.',
  schema: z.object({ city: z.string() }),
});

for (const [name, more] of [['chat', {}], ['responses', { useResponsesApi: true }]]) {
  const model = new ChatOpenAI({ ...fields, ...more });
  await check(`${name}_history_and_stream`, async () => {
    const turns = [['system', 'Be brief.'], ['human', 'My name is Bob.'], ['ai', 'Hello Bob!'], ['human', 'What is my name?']];
    assert((await model.invoke(turns)).text, 'no text');
    let text = '';
    for await (const chunk of await model.stream('Count to five.')) text += chunk.text;
    assert(text, 'no text');
  });
  await check(`${name}_structured_output`, async () => {
    const person = await model.withStructuredOutput(Person).invoke('Bob is 30 years old. Who is it?');
    assert(typeof person.name === 'string', 'no person');
  });
  await check(`${name}_agent`, async () => {
    const agent = createAgent({ model, tools: [weather], systemPrompt: 'Use tools.' });
    const result = await agent.invoke({ messages: [{ role: 'user', content: 'What is the weather in Paris?' }] });
    assert(result.messages.length > 1, 'no answer');
  });
}

await check('embeddings', async () => {
  const embeddings = new OpenAIEmbeddings({ model: MODEL, apiKey: API_KEY, configuration: { baseURL: API_URL } });
  assert((await embeddings.embedDocuments(['a cat', 'a dog'])).length === 2, 'no vectors');
});
