// What the programs for Node share: questions come as lines of JSON, each is answered with one.
import fs from 'node:fs';
import readline from 'node:readline';

export const MESSAGE = 'What is the weather like in Seoul, Busan and Jeju, and what time is it?';
const WEATHER = { Seoul: '21 degrees', Busan: '23 degrees', Jeju: '25 degrees' };
export const TOOLS = [
  {
    name: 'weather',
    description: 'Tell the weather of a city.',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string', description: "The city's name." } },
      required: ['city'],
    },
  },
  { name: 'now', description: 'Tell the time.', parameters: { type: 'object', properties: {} } },
];
export const SCHEMA = {
  type: 'object',
  properties: { city: { type: 'string' }, degrees: { type: 'integer' } },
  required: ['city', 'degrees'],
  additionalProperties: false,
};
export const TEXTS = ['a', 'bcd'];
// A red square, PNG in base64.
export const PICTURE =
  'iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR42mP8z0AaYGIY1TCqYdhqAABALgEfFO4+AgAAAABJRU5ErkJggg==';
let called = [];

export function weather({ city }) {
  called.push(['weather', { city }]);
  return WEATHER[city];
}

export function now() {
  called.push(['now', {}]);
  return '12:00';
}

// Calls a tool as a hand-written loop does.
export function call(name, given) {
  const it = typeof given === 'string' ? JSON.parse(given || '{}') : given;
  return { weather, now }[name](it);
}

// Has the account's responses stored meanwhile.
export async function storing(question, work) {
  await sent(question, 'PATCH', '/account/me', { stores_responses: true });
  try {
    return await work();
  } finally {
    await sent(question, 'PATCH', '/account/me', { stores_responses: false });
  }
}

async function sent({ url, key }, method, path, body) {
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
  const answer = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

export function picture(bytes) {
  const head = Buffer.from(bytes).subarray(0, 8).toString('latin1');
  return head === '\x89PNG\r\n\x1a\n' ? 'png' : JSON.stringify(head);
}

// `failure` returns the status of an error that the client throws.
export async function serve({ failure, ...scenarios }) {
  for (const kind of ['log', 'info', 'debug']) console[kind] = console.error;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const question = JSON.parse(line);
    called = [];
    let answer;
    try {
      const scenario = scenarios[question.scenario.replaceAll('-', '_')];
      if (!scenario) throw new Error(`the program has no ${question.scenario}`);
      answer = { said: await scenario(question), called };
    } catch (error) {
      answer = { status: failure?.(error) ?? null, failed: String(error?.message ?? error).slice(0, 600), called };
      if (answer.status === null || question.scenario !== 'refused') console.error(error);
    }
    fs.writeSync(1, JSON.stringify(answer) + '\n');
  }
  process.exit(0);
}
