// Anthropic's client for Node.
import Anthropic from '@anthropic-ai/sdk';
import * as rig from './rig.mjs';

const tools = rig.TOOLS.map(({ name, description, parameters }) => ({ name, description, input_schema: parameters }));
const thinks = { tools, thinking: { type: 'enabled', budget_tokens: 2048 } };

const client = ({ url, key }) => new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const begun = () => [{ role: 'user', content: rig.MESSAGE }];
const asked = ({ model }, messages, more) => ({ model, max_tokens: 8000, messages, ...more });
const textOf = ({ content }) =>
  content
    .filter((block) => block.type === 'text')
    .map((block) => block.text)
    .join('');

// The blocks of the client are handed back as they are.
async function loop(question, ask) {
  const messages = begun();
  for (;;) {
    const message = await ask(asked(question, messages, thinks));
    const calls = message.content.filter((block) => block.type === 'tool_use');
    if (!calls.length) return textOf(message);
    if (message.stop_reason !== 'tool_use') throw new Error(`calls end with ${message.stop_reason}`);
    const results = calls.map(({ id, name, input }) => ({
      type: 'tool_result',
      tool_use_id: id,
      content: rig.call(name, input),
    }));
    messages.push({ role: 'assistant', content: message.content }, { role: 'user', content: results });
  }
}

const plain = async (question) => textOf(await client(question).messages.create(asked(question, begun())));

await rig.serve({
  plain,
  refused: plain,
  async picture(question) {
    const source = { type: 'base64', media_type: 'image/png', data: rig.PICTURE };
    const content = [
      { type: 'image', source },
      { type: 'text', text: rig.MESSAGE },
    ];
    return textOf(await client(question).messages.create(asked(question, [{ role: 'user', content }])));
  },
  async stream(question) {
    let said = '';
    const stream = client(question).messages.stream(asked(question, begun()));
    stream.on('text', (piece) => (said += piece));
    const message = await stream.finalMessage();
    if (message.stop_reason !== 'end_turn' || textOf(message) !== said) throw new Error(JSON.stringify(message));
    return said;
  },
  tools: (question) => loop(question, (given) => client(question).messages.create(given)),
  tools_stream: (question) => loop(question, (given) => client(question).messages.stream(given).finalMessage()),
  async structured(question) {
    const format = { type: 'json_schema', schema: rig.SCHEMA };
    const message = await client(question).messages.create(asked(question, begun(), { output_config: { format } }));
    return JSON.parse(textOf(message));
  },
  failure: (error) => (error instanceof Anthropic.RateLimitError && error.requestID ? error.status : null),
});
