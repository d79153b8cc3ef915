// Claude Code in a terminal: it reads a file, edits it, runs its test and reports, without a person.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as rig from './rig.mjs';

const program = path.join(
  path.dirname(fileURLToPath(import.meta.url)),
  'node_modules/@anthropic-ai/claude-code-linux-x64/claude',
);
const ASKED = 'Read greeting.py, mend it, run its test and report.';
const BROKEN = "def greeting():\n    return 'hello, wrld'\n";
const TEST = "from greeting import greeting\n\nassert greeting() == 'hello, world', greeting()\nprint('1 test passed')\n";

function run(question, cwd) {
  const args = ['-p', ASKED, '--model', question.model, '--permission-mode', 'acceptEdits'];
  const env = {
    ...process.env,
    HOME: cwd,
    ANTHROPIC_BASE_URL: question.url,
    ANTHROPIC_API_KEY: question.key,
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
    DISABLE_AUTOUPDATER: '1',
    DISABLE_TELEMETRY: '1',
    MAX_THINKING_TOKENS: '2048',
    PYTHONDONTWRITEBYTECODE: '1',
  };
  return new Promise((resolve, reject) => {
    const agent = spawn(program, [...args, '--allowedTools', 'Read', 'Edit', 'Bash'], {
      cwd,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
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
