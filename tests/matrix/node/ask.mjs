// The official client on Node: node ask.mjs URL KEY MODEL (text | stream | image); prints what was answered.
import OpenAI from 'openai';

const [url, key, model, what] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const messages = [{ role: 'user', content: 'hi' }];

if (what === 'text') {
  const made = await client.chat.completions.create({ model, messages });
  console.log(made.choices[0].message.content);
} else if (what === 'stream') {
  let out = '';
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
    out += chunk.choices[0]?.delta?.content ?? '';
  }
  console.log(out);
} else {
  const made = await client.images.generate({ model, prompt: 'a red circle', response_format: 'b64_json' });
  console.log(made.data[0].b64_json);
}
