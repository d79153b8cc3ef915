// OpenAI's client for Node.
import OpenAI from 'openai';
import * as rig from './rig.mjs';

const tools = rig.TOOLS.map((tool) => ({ type: 'function', function: tool }));
const begun = () => [{ role: 'user', content: rig.MESSAGE }];
const client = ({ url, key }) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });

async function plain(question) {
  const answer = await client(question).chat.completions.create({ model: question.model, messages: begun() });
  return answer.choices[0].message.content;
}

async function looped(question, ask) {
  const messages = begun();
  for (;;) {
    const message = await ask({ model: question.model, messages, tools, reasoning_effort: 'medium' });
    if (!message.tool_calls?.length) return message.content;
    messages.push(message);
    for (const each of message.tool_calls) {
      const content = rig.call(each.function.name, each.function.arguments);
      messages.push({ role: 'tool', tool_call_id: each.id, content });
    }
  }
}

await rig.serve({
  plain,
  async picture(question) {
    const url = `data:image/png;base64,${rig.PICTURE}`;
    const content = [
      { type: 'text', text: rig.MESSAGE },
      { type: 'image_url', image_url: { url } },
    ];
    const asked = { model: question.model, messages: [{ role: 'user', content }] };
    return (await client(question).chat.completions.create(asked)).choices[0].message.content;
  },
  refused: plain,
  async stream(question) {
    const chunks = await client(question).chat.completions.create({
      model: question.model,
      messages: begun(),
      stream: true,
      stream_options: { include_usage: true },
    });
    let said = '';
    for await (const chunk of chunks) said += chunk.choices[0]?.delta?.content ?? '';
    return said;
  },
  tools: (question) =>
    looped(question, async (body) => (await client(question).chat.completions.create(body)).choices[0].message),
  // The client puts the message together.
  tools_stream: (question) =>
    looped(question, async (body) => {
      const answer = await client(question).chat.completions.stream(body).finalChatCompletion();
      return answer.choices[0].message;
    }),
  async structured(question) {
    const json_schema = { name: 'weather', schema: rig.SCHEMA, strict: true };
    const answer = await client(question).chat.completions.parse({
      model: question.model,
      messages: begun(),
      response_format: { type: 'json_schema', json_schema },
    });
    return JSON.parse(answer.choices[0].message.content);
  },
  async images(question) {
    const asked = { model: question.model, prompt: 'a tree', response_format: 'b64_json' };
    const answer = await client(question).images.generate(asked);
    return answer.data.map((each) => rig.picture(Buffer.from(each.b64_json, 'base64')));
  },
  async embeddings(question) {
    const answer = await client(question).embeddings.create({ model: question.model, input: rig.TEXTS });
    return answer.data.map((each) => [each.embedding.length, each.embedding[0]]);
  },
  failure: (error) => (error instanceof OpenAI.RateLimitError ? error.status : null),
});
