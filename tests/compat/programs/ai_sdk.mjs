// The AI SDK, by its packages for OpenAI (Responses, its default, and chats), for what is compatible, and for Google.
import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, embedMany, generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import * as rig from './rig.mjs';

const tools = Object.fromEntries(
  rig.TOOLS.map(({ name, description, parameters }) => [
    name,
    tool({ description, inputSchema: jsonSchema(parameters), execute: (given) => rig.call(name, given) }),
  ]),
);

function provider({ dialect, url, key }) {
  if (dialect === 'google') return createGoogleGenerativeAI({ baseURL: `${url}/v1beta`, apiKey: key });
  if (dialect === 'openai' || dialect === 'responses') return createOpenAI({ baseURL: `${url}/v1`, apiKey: key });
  return createOpenAICompatible({
    name: 'moa',
    baseURL: `${url}/v1`,
    apiKey: key,
    supportsStructuredOutputs: true,
    includeUsage: true,
  });
}

function model(question) {
  const made = provider(question);
  return question.dialect === 'openai' ? made.chat(question.model) : made(question.model);
}

const asked = (question, more) => ({ model: model(question), prompt: rig.MESSAGE, maxRetries: 0, ...more });
const thinks = {
  tools,
  stopWhen: stepCountIs(9),
  providerOptions: {
    // Of the Responses API: without it the SDK names earlier items by their ids, and the gateway keeps none.
    openai: { reasoningEffort: 'medium', store: false },
    moa: { reasoningEffort: 'medium' },
    google: { thinkingConfig: { includeThoughts: true } },
  },
};

async function streamed(question, more) {
  let failed;
  const answer = streamText({
    ...asked(question, more),
    onError: ({ error }) => {
      failed = error;
    },
  });
  let said = '';
  for await (const piece of answer.textStream) said += piece;
  if (failed) throw failed;
  return more ? await answer.text : said;
}

const plain = async (question) => (await generateText(asked(question))).text;

await rig.serve({
  plain,
  async picture(question) {
    const content = [
      { type: 'text', text: rig.MESSAGE },
      { type: 'image', image: Buffer.from(rig.PICTURE, 'base64') },
    ];
    const { prompt, ...rest } = asked(question);
    return (await generateText({ ...rest, messages: [{ role: 'user', content }] })).text;
  },
  refused: plain,
  stream: (question) => streamed(question),
  tools: async (question) => (await generateText(asked(question, thinks))).text,
  // It names earlier items by their ids, which the gateway keeps.
  async tools_stored(question) {
    const stored = { ...thinks, providerOptions: { openai: { reasoningEffort: 'medium', store: true } } };
    return rig.storing(question, async () => (await generateText(asked(question, stored))).text);
  },
  tools_stream: (question) => streamed(question, thinks),
  async structured(question) {
    return (await generateObject(asked(question, { schema: jsonSchema(rig.SCHEMA) }))).object;
  },
  async embeddings(question) {
    const made = provider(question).textEmbeddingModel(question.model);
    const { embeddings } = await embedMany({ model: made, values: rig.TEXTS, maxRetries: 0 });
    return embeddings.map((each) => [each.length, each[0]]);
  },
  failure: (error) => (APICallError.isInstance(error) ? error.statusCode : null),
});
