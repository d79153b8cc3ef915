// Google's client for JavaScript.
import { ApiError, GoogleGenAI } from '@google/genai';
import * as rig from './rig.mjs';

const declared = [
  {
    functionDeclarations: rig.TOOLS.map(({ name, description, parameters }) => ({
      name,
      description,
      parametersJsonSchema: parameters,
    })),
  },
];
const thinkingConfig = { includeThoughts: true };
const client = ({ url, key }) => new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: url } });

async function plain(question) {
  const { models } = client(question);
  return (await models.generateContent({ model: question.model, contents: rig.MESSAGE })).text;
}

async function looped(question, ask) {
  const contents = [{ role: 'user', parts: [{ text: rig.MESSAGE }] }];
  for (;;) {
    const parts = await ask({ model: question.model, contents, config: { tools: declared, thinkingConfig } });
    const calls = parts.filter((part) => part.functionCall).map((part) => part.functionCall);
    if (!calls.length) return parts.map((part) => (part.thought ? '' : (part.text ?? ''))).join('');
    contents.push({ role: 'model', parts });
    const answered = calls.map(({ id, name, args }) => ({
      functionResponse: { id, name, response: { result: rig.call(name, args ?? {}) } },
    }));
    contents.push({ role: 'user', parts: answered });
  }
}

await rig.serve({
  plain,
  async picture(question) {
    const contents = [rig.MESSAGE, { inlineData: { mimeType: 'image/png', data: rig.PICTURE } }];
    return (await client(question).models.generateContent({ model: question.model, contents })).text;
  },
  refused: plain,
  async stream(question) {
    const { models } = client(question);
    let said = '';
    const chunks = await models.generateContentStream({ model: question.model, contents: rig.MESSAGE });
    for await (const chunk of chunks) said += chunk.text ?? '';
    return said;
  },
  tools: (question) =>
    looped(question, async (body) => {
      const answer = await client(question).models.generateContent(body);
      return answer.candidates[0].content.parts;
    }),
  tools_stream: (question) =>
    looped(question, async (body) => {
      const parts = [];
      const chunks = await client(question).models.generateContentStream(body);
      for await (const chunk of chunks) parts.push(...(chunk.candidates[0].content?.parts ?? []));
      return parts;
    }),
  async structured(question) {
    const config = { responseMimeType: 'application/json', responseJsonSchema: rig.SCHEMA };
    const asked = { model: question.model, contents: rig.MESSAGE, config };
    return JSON.parse((await client(question).models.generateContent(asked)).text);
  },
  async images(question) {
    const answer = await client(question).models.generateContent({ model: question.model, contents: 'a tree' });
    const parts = answer.candidates[0].content.parts.filter((part) => part.inlineData);
    return parts.map((part) => rig.picture(Buffer.from(part.inlineData.data, 'base64')));
  },
  async embeddings(question) {
    const answer = await client(question).models.embedContent({ model: question.model, contents: rig.TEXTS });
    return answer.embeddings.map((each) => [each.values.length, each.values[0]]);
  },
  failure: (error) => (error instanceof ApiError ? error.status : null),
});
