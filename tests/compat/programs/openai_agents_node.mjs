// OpenAI's Agents for JavaScript, in their default mode, by the Responses API, and by chats.
import { Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, setTracingDisabled, tool } from '@openai/agents';
import OpenAI from 'openai';
import { z } from 'zod';
import * as rig from './rig.mjs';

setTracingDisabled(true);
const tools = [
  tool({ name: 'weather', description: 'Tell the weather of a city.', parameters: z.object({ city: z.string() }), execute: rig.weather }),
  tool({ name: 'now', description: 'Tell the time.', parameters: z.object({}), execute: rig.now }),
];

function agent(question, more) {
  const client = new OpenAI({ baseURL: `${question.url}/v1`, apiKey: question.key, maxRetries: 0 });
  const kind = question.dialect === 'responses' ? OpenAIResponsesModel : OpenAIChatCompletionsModel;
  const model = new kind(client, question.model);
  return new Agent({ name: 'Helper', instructions: 'You help.', model, ...more });
}

const thinks = { tools, modelSettings: { reasoning: { effort: 'medium' } } };
const plain = async (question) => (await new Runner().run(agent(question), rig.MESSAGE)).finalOutput;

async function streamed(question, more) {
  const answer = await new Runner().run(agent(question, more), rig.MESSAGE, { stream: true });
  let said = '';
  for await (const piece of answer.toTextStream()) said += piece;
  await answer.completed;
  return more ? answer.finalOutput : said;
}

await rig.serve({
  plain,
  refused: plain,
  stream: (question) => streamed(question),
  tools: async (question) => (await new Runner().run(agent(question, thinks), rig.MESSAGE)).finalOutput,
  tools_stream: (question) => streamed(question, thinks),
  async structured(question) {
    const outputType = z.object({ city: z.string(), degrees: z.number().int() });
    return (await new Runner().run(agent(question, { outputType }), rig.MESSAGE)).finalOutput;
  },
  failure: (error) => error?.status ?? null,
});
