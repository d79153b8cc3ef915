// Codex in a terminal: it reads a file, edits it, runs its test and reports, without a person.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as rig from './rig.mjs';

const program = path.join(
  path.dirname(fileURLToPath(import.meta.url)),
  'node_modules/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex',
);
const ASKED = 'Read greeting.py, mend it, run its test and report.';
const BROKEN = "def greeting():\n    return 'hello, wrld'\n";
const TEST = "from greeting import greeting\n\nassert greeting() == 'hello, world', greeting()\nprint('1 test passed')\n";

const configured = ({ model, url }) => `
model = "${model}"
model_provider = "moa"
model_reasoning_effort = "medium"
web_search = "disabled"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.moa]
name = "Moa"
base_url = "${url}/v1"
env_key = "MOA_API_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
`;

function run(question, cwd) {
  const home = path.join(cwd, '.codex');
  fs.mkdirSync(home);
  fs.writeFileSync(path.join(home, 'config.toml'), configured(question));
  // It is the machine's sandbox that holds it: Codex's own needs rights that a test has not everywhere.
  const args = ['exec', '--skip-git-repo-check', '--dangerously-bypass-approvals-and-sandbox', ASKED];
  const env = {
    PATH: process.env.PATH,
    HOME: cwd,
    CODEX_HOME: home,
    MOA_API_KEY: question.key,
    NO_PROXY: '*',
    PYTHONDONTWRITEBYTECODE: '1',
  };
  return new Promise((resolve, reject) => {
    const agent = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const out of [agent.stdout, agent.stderr]) out.on('data', (bytes) => (said += bytes));
    agent.on('error', reject);
    agent.on('close', () => resolve(said));
  });
}

await rig.serve({
  async agent(question) {
    const folder = fs.mkdtempSync(path.join(process.cwd(), 'work-'));
    fs.writeFileSync(path.join(folder, 'greeting.py'), BROKEN);
    fs.writeFileSync(path.join(folder, 'test_greeting.py'), TEST);
    const said = await run(question, folder);
    console.error(said);
    if (!said.includes(question.text)) throw new Error(`it did not say what the model said: ${said.slice(-500)}`);
    return fs.readFileSync(path.join(folder, 'greeting.py'), 'utf8');
  },
});
