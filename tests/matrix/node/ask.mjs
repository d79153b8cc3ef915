// Clients on Node. Reads a line of JSON each question, {how, url, key, model, what}, and answers it with a line of JSON,
// {said} or {failed}. `how`: `client`, the official one, or `fetch`, none. `what`: `text`, `stream` or `image`.
import readline from 'node:readline';

const messages = [{ role: 'user', content: 'hi' }];

async function byFetch({ url, key, model, what }) {
  const answer = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    body: JSON.stringify({ model, messages, stream: what === 'stream' }),
  });
  if (what === 'text') return (await answer.json()).choices[0].message.content;
  let rest = '', out = '';
  const decoder = new TextDecoder();
  for await (const bytes of answer.body) {
    rest += decoder.decode(bytes, { stream: true });
    const events = rest.split('\n\n');
    rest = events.pop();
    for (const event of events) {
      if (event === 'data: [DONE]') continue;
      out += JSON.parse(event.slice(6)).choices[0]?.delta?.content ?? '';
    }
  }
  return out;
}

async function byClient({ url, key, model, what }) {
  const { default: OpenAI } = await import('openai');
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
  if (what === 'text') {
    return (await client.chat.completions.create({ model, messages })).choices[0].message.content;
  }
  if (what === 'stream') {
    let out = '';
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
      out += chunk.choices[0]?.delta?.content ?? '';
    }
    return out;
  }
  return (await client.images.generate({ model, prompt: 'a red circle', response_format: 'b64_json' })).data[0].b64_json;
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  let told;
  try {
    told = { said: await (question.how === 'fetch' ? byFetch(question) : byClient(question)) };
  } catch (error) {
    told = { failed: String(error?.stack ?? error) };
  }
  console.log(JSON.stringify(told));
}
