// Replicate's client for JavaScript.
import Replicate from 'replicate';
import * as rig from './rig.mjs';

const client = ({ url, key }) => new Replicate({ auth: key, baseUrl: `${url}/v1` });

await rig.serve({
  async images(question) {
    const made = await client(question).run(question.model, { input: { prompt: 'a tree' } });
    const files = Array.isArray(made) ? made : [made];
    // Of a link without TLS the client makes no file.
    const read = async (each) => (typeof each === 'string' ? await fetch(each) : await each.blob()).arrayBuffer();
    return Promise.all(files.map(async (each) => rig.picture(await read(each))));
  },
  async task(question) {
    const [owner, name] = question.model.split('/');
    const made = await client(question).predictions.create({ model: `${owner}/${name}`, input: { prompt: 'a tree' } });
    const done = await client(question).wait(made, { interval: 100 });
    const listed = [];
    for await (const page of client(question).paginate(client(question).predictions.list)) listed.push(...page);
    if (!listed.some((each) => each.id === made.id)) throw new Error(`${made.id} is not listed`);
    return done.status;
  },
  failure: (error) => error?.response?.status ?? null,
});
