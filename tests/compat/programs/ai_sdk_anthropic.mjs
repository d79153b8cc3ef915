// The AI SDK, by its package for Anthropic.
import { createAnthropic } from '@ai-sdk/anthropic';
import { APICallError, generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import * as rig from './rig.mjs';

const tools = Object.fromEntries(
  rig.TOOLS.map(({ name, description, parameters }) => [
    name,
    tool({ description, inputSchema: jsonSchema(parameters), execute: (given) => rig.call(name, given) }),
  ]),
);
const thinks = {
  tools,
  stopWhen: stepCountIs(9),
  providerOptions: { anthropic: { thinking: { type: 'enabled', budgetTokens: 2048 } } },
};

const asked = ({ url, key, model }, more) => ({
  model: createAnthropic({ baseURL: `${url}/v1`, apiKey: key })(model),
  prompt: rig.MESSAGE,
  maxRetries: 0,
  maxOutputTokens: 4000,
  ...more,
});

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
  tools_stream: (question) => streamed(question, thinks),
  async structured(question) {
    return (await generateObject(asked(question, { schema: jsonSchema(rig.SCHEMA) }))).object;
  },
  failure: (error) => (APICallError.isInstance(error) ? error.statusCode : null),
});
