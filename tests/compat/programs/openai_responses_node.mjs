// OpenAI's client for Node, by the Responses API.
import OpenAI from 'openai';
import * as rig from './rig.mjs';

const tools = rig.TOOLS.map((tool) => ({ type: 'function', strict: false, ...tool }));
const client = ({ url, key }) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });

async function plain(question) {
  return (await client(question).responses.create({ model: question.model, input: rig.MESSAGE })).output_text;
}

async function looped(question, ask) {
  const input = [{ role: 'user', content: rig.MESSAGE }];
  for (;;) {
    const reasoning = { effort: 'medium', summary: 'auto' };
    const answer = await ask({ model: question.model, input, tools, reasoning, store: false });
    const calls = answer.output.filter((item) => item.type === 'function_call');
    if (!calls.length) return answer.output_text;
    input.push(...answer.output);
    for (const each of calls) {
      const output = rig.call(each.name, each.arguments);
      input.push({ type: 'function_call_output', call_id: each.call_id, output });
    }
  }
}

await rig.serve({
  plain,
  refused: plain,
  async picture(question) {
    const content = [
      { type: 'input_text', text: rig.MESSAGE },
      { type: 'input_image', image_url: `data:image/png;base64,${rig.PICTURE}`, detail: 'auto' },
    ];
    const asked = { model: question.model, input: [{ role: 'user', content }] };
    return (await client(question).responses.create(asked)).output_text;
  },
  async stream(question) {
    const asked = { model: question.model, input: rig.MESSAGE, stream: true };
    let said = '';
    for await (const event of await client(question).responses.create(asked)) {
      if (event.type === 'response.output_text.delta') said += event.delta;
    }
    return said;
  },
  tools: (question) => looped(question, (body) => client(question).responses.create(body)),
  // The client puts the response together.
  tools_stream: (question) => looped(question, (body) => client(question).responses.stream(body).finalResponse()),
  async structured(question) {
    const format = { type: 'json_schema', name: 'weather', schema: rig.SCHEMA, strict: true };
    const answer = await client(question).responses.parse({ model: question.model, input: rig.MESSAGE, text: { format } });
    return answer.output_parsed;
  },
  failure: (error) => (error instanceof OpenAI.RateLimitError ? error.status : null),
});
