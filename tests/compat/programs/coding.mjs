// Coding agents in a terminal: each writes a note, reads it twice at once and counts its letters, without a person.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as rig from './rig.mjs';

const modules = path.join(path.dirname(fileURLToPath(import.meta.url)), 'node_modules');
const ASKED = 'Write a note, read it and count its letters.';

const agents = {
  opencode({ url, key, model }, folder) {
    const known = { name: model, reasoning: true, tool_call: true, options: { reasoningEffort: 'medium' } };
    const options = { baseURL: `${url}/v1`, apiKey: key };
    const moa = { npm: '@ai-sdk/openai-compatible', name: 'Moa', options, models: { [model]: known } };
    const config = { provider: { moa }, autoupdate: false, share: 'disabled' };
    fs.writeFileSync(path.join(folder, 'opencode.json'), JSON.stringify(config));
    return {
      command: [path.join(modules, 'opencode-linux-x64/bin/opencode'), 'run', '-m', `moa/${model}`, '--auto', ASKED],
      env: { OPENCODE_DISABLE_AUTOUPDATE: '1', OPENCODE_DISABLE_MODELS_FETCH: '1', OPENCODE_DISABLE_LSP_DOWNLOAD: '1' },
    };
  },
  'gemini-cli'({ url, key, model }, folder) {
    const settings = {
      security: { auth: { selectedType: 'gemini-api-key' } },
      privacy: { usageStatisticsEnabled: false },
      general: { disableAutoUpdate: true },
    };
    fs.mkdirSync(path.join(folder, '.gemini'));
    fs.writeFileSync(path.join(folder, '.gemini', 'settings.json'), JSON.stringify(settings));
    const program = path.join(modules, '@google/gemini-cli/bundle/gemini.js');
    return {
      command: [process.execPath, program, '-m', model, '--skip-trust', '--approval-mode', 'yolo', '-p', ASKED],
      env: { GEMINI_API_KEY: key, GOOGLE_GEMINI_BASE_URL: url, GEMINI_TELEMETRY_ENABLED: 'false' },
    };
  },
  cline({ url, key, model }) {
    const program = path.join(modules, '@cline/cli-linux-x64/bin/cline');
    return {
      before: [program, 'auth', 'openai', '-k', key, '-b', `${url}/v1`, '-m', model],
      command: [program, '-P', 'openai', '-k', key, '-m', model, '--thinking', 'medium', '--json', ASKED],
      env: { CLINE_TELEMETRY_DISABLED: '1' },
    };
  },
  continue({ url, key, model }, folder) {
    const own = {
      name: model,
      provider: 'openai',
      model,
      apiBase: `${url}/v1`,
      apiKey: key,
      roles: ['chat'],
      capabilities: ['tool_use'],
    };
    if (!model.startsWith('gpt-4')) own.requestOptions = { extraBodyProperties: { reasoning_effort: 'medium' } };
    const config = { name: 'moa', version: '1.0.0', schema: 'v1', models: [own] };
    fs.writeFileSync(path.join(folder, 'config.yaml'), JSON.stringify(config));
    const program = path.join(modules, '@continuedev/cli/dist/cn.js');
    return {
      command: [process.execPath, program, '-p', '--config', 'config.yaml', '--auto', ASKED],
      env: { CONTINUE_TELEMETRY_ENABLED: '0' },
    };
  },
};

function run(command, cwd, env) {
  return new Promise((resolve, reject) => {
    const process_ = spawn(command[0], command.slice(1), {
      cwd,
      env: { ...process.env, ...env, HOME: cwd, XDG_CONFIG_HOME: '', XDG_DATA_HOME: '' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    for (const out of [process_.stdout, process_.stderr]) out.on('data', (bytes) => (said += bytes));
    process_.on('error', reject);
    process_.on('close', () => resolve(said));
  });
}

async function write(question) {
  const folder = fs.mkdtempSync(path.join(process.cwd(), 'work-'));
  const { before, command, env } = agents[question.client](question, folder);
  if (before) console.error(await run(before, folder, env));
  const said = await run(command, folder, env);
  console.error(said);
  if (/429|upstream_rate_limited|rate limit/i.test(said) && question.scenario === 'refused') {
    throw Object.assign(new Error(said.slice(-300)), { status: 429 });
  }
  if (!said.includes(question.text)) throw new Error(`it did not say what the model said: ${said.slice(-500)}`);
  return fs.readFileSync(path.join(folder, 'note.txt'), 'utf8');
}

await rig.serve({ agent: write, failure: (error) => error.status ?? null });
