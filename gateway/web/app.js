// The dashboard: accounts, keys, limits and usage over the documented REST under /account.
//
// The session token lives in this tab only. Everything that a server says is shown as text, never as markup.
import { WORDS } from "./words.js";

const byId = (id) => document.getElementById(id);
const MICRO = 1_000_000;
// What is left of these today is shown first.
const DAILY = ["tokens", "images"];

let language = localStorage.getItem("language") ?? (navigator.language.startsWith("ko") ? "ko" : "en");
let session = sessionStorage.getItem("session");
let setupToken = takeToken("setup");
let resetToken = takeToken("reset");

// One-time links: of the first administrator, and for a forgotten password. What is behind the # is sent to nobody; here it
// leaves the history too.
function takeToken(name) {
  const token = new URLSearchParams(location.hash.slice(1)).get(name);
  if (token) history.replaceState(null, "", location.pathname);
  return token;
}

function word(name, values = {}) {
  return WORDS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(verb, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method: verb,
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(session ? { authorization: `Bearer ${session}` } : {}),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, word("offline"));
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, found.detail ?? `HTTP ${answer.status}`);
  return found;
}

function say(text) {
  byId("status").textContent = text;
  byId("error").textContent = "";
}

// Run what a person asked for; a failure is told, and an ended session leads back to the door.
async function attempt(work) {
  say("");
  try {
    await work();
  } catch (error) {
    if (error.status === 401 && session) {
      leave();
      byId("error").textContent = word("ended");
    } else {
      byId("error").textContent = error.message;
    }
  }
}

function leave() {
  session = null;
  sessionStorage.removeItem("session");
  byId("secret").hidden = true;
  byId("secret-value").textContent = "";
  byId("sample").textContent = "";
  tellWebhooks({});
  show();
}

function tellWebhooks({ key = "", previous_until: until }) {
  byId("webhook-secret").textContent = key;
  byId("webhook-until").textContent = until ? word("overlap", { when: new Date(until).toLocaleString(language) }) : "";
}

function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = word(element.dataset.text);
  const toggle = byId("language");
  toggle.textContent = word("language");
  toggle.lang = language === "ko" ? "en" : "ko";
}

const asDay = (time) => (time ? new Date(time).toLocaleDateString(language) : word("never"));
const asNumber = (value) => Number(value ?? 0).toLocaleString(language);

function cell(text, kind) {
  const made = document.createElement("td");
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function action(name, label, work) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "quiet";
  made.textContent = word(name);
  made.setAttribute("aria-label", `${word(name)}: ${label}`);
  made.addEventListener("click", () => attempt(work));
  return made;
}

function quotaRow(name, limit, free) {
  const title = document.createElement("dt");
  title.textContent = word(name);
  const value = document.createElement("dd");
  const meter = document.createElement("meter");
  meter.max = Math.max(1, Number(limit));
  meter.value = Number(free);
  meter.low = meter.max * 0.1;
  meter.setAttribute("aria-label", word(name));
  value.append(meter, word("left", { free: asNumber(free), limit: asNumber(limit) }));
  return [title, value];
}

function factRow(name, text) {
  const title = document.createElement("dt");
  title.textContent = word(name);
  const value = document.createElement("dd");
  value.textContent = text;
  return [title, value];
}

function limitName(limit) {
  const [, what, period] = /^(.+)_(a_day|a_month|in_total)$/.exec(limit);
  return word(period, { what: word(what) });
}

async function showLimits() {
  const limits = await ask("GET", "/account/limits");
  const { remaining = {}, priority, standings = [] } = limits;
  const { granted_micro_credits: granted = 0, left_micro_credits: left = 0 } = limits;
  const list = byId("limits");
  list.replaceChildren();
  if (remaining.unlimited) {
    const only = document.createElement("dd");
    only.textContent = word("unlimited");
    list.append(only);
  } else {
    for (const name of DAILY) {
      const most = remaining.limit?.[name];
      if (most !== undefined) list.append(...quotaRow(name, most, remaining.free?.[name]));
    }
  }
  for (const { limit, key_id: key, most, used = "0" } of standings) {
    if (DAILY.some((name) => limit === `${name}_a_day`)) continue;
    const [title, value] = factRow("limits", `${used} / ${most}`);
    title.textContent = limitName(limit) + (key ? ` (${key})` : "");
    list.append(title, value);
  }
  const used = Number(granted) - Number(left);
  list.append(...factRow("credits", `${asNumber(used / MICRO)} / ${asNumber(Number(granted) / MICRO)}`));
  list.append(...factRow("priority", word(priority ?? "PRIORITY_NORMAL")));
  const when = remaining.resets_at ? new Date(remaining.resets_at).toLocaleString(language) : "";
  byId("resets").textContent = when && !remaining.unlimited ? word("resets", { when }) : "";
}

function reveal(secret) {
  byId("secret-value").textContent = secret;
  byId("sample").textContent = [
    `curl ${location.origin}/v1/chat/completions \\`,
    `  -H "Authorization: Bearer ${secret}" \\`,
    `  -H "Content-Type: application/json" \\`,
    `  -d '{"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hello"}]}'`,
  ].join("\n");
  byId("secret").hidden = false;
  byId("secret").focus();
}

function stateOf(key) {
  if (key.revoked_at) return "revoked";
  return key.expires_at && new Date(key.expires_at) < new Date() ? "expired" : "active";
}

function keyRow(key) {
  const row = document.createElement("tr");
  const state = stateOf(key);
  row.append(cell(key.name), cell(`${key.prefix}…`), cell(asDay(key.created_at)));
  const own = key.priority && key.priority !== "PRIORITY_UNSPECIFIED" ? `, ${word(key.priority)}` : "";
  const manages = (key.manages ?? []).map((scope) => `, ${word(scope)}`).join("");
  row.append(cell(asDay(key.last_used_at)), cell(word(state) + own + manages));
  const actions = cell("");
  if (state !== "revoked") {
    const path = `/account/keys/${encodeURIComponent(key.key_id)}`;
    actions.append(
      action("rename", key.name, async () => {
        const name = prompt(word("askRename"), key.name);
        if (!name) return;
        await ask("PATCH", path, { name });
        await showKeys();
        say(word("renamed"));
      }),
      action("rotate", key.name, async () => {
        if (!confirm(word("askRotate", { name: key.name }))) return;
        const made = await ask("POST", `${path}/rotate`, {});
        await showKeys();
        reveal(made.api_key);
      }),
      action("revoke", key.name, async () => {
        if (!confirm(word("askRevoke", { name: key.name }))) return;
        await ask("DELETE", path);
        await showKeys();
        say(word("gone"));
      }),
    );
  }
  row.append(actions);
  return row;
}

async function showKeys() {
  const { keys = [] } = await ask("GET", "/account/keys");
  byId("keys").replaceChildren(...keys.map(keyRow));
}

async function showUsage() {
  const from = new Date(Date.now() - 30 * 86_400_000).toISOString().slice(0, 10);
  const { rows = [] } = await ask("GET", `/account/usage?from_day=${from}`);
  byId("no-usage").hidden = rows.length > 0;
  byId("usage").replaceChildren(
    ...rows.map((row) => {
      const made = document.createElement("tr");
      made.append(cell(row.day), cell(`${row.provider}/${row.model}`), cell(asNumber(row.requests), "number"));
      const tokens = Number(row.prompt_tokens ?? 0) + Number(row.completion_tokens ?? 0);
      made.append(cell(asNumber(tokens), "number"), cell(asNumber(row.charged_images ?? 0), "number"));
      return made;
    }),
  );
}

async function show() {
  translate();
  byId("setup-section").hidden = Boolean(session) || !setupToken;
  byId("reset-section").hidden = !resetToken;
  byId("outside").hidden = Boolean(session) || Boolean(setupToken) || Boolean(resetToken);
  byId("inside").hidden = !session;
  byId("logout").hidden = !session;
  byId("who").textContent = "";
  if (!session) return;
  const { account } = await ask("GET", "/account/me");
  byId("who").textContent = word("hello", { email: account.email });
  await Promise.all([showLimits(), showKeys(), showUsage()]);
}

function onSubmit(id, work) {
  const form = byId(id);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    attempt(() => work(Object.fromEntries(new FormData(form)), form)).finally(() => (button.disabled = false));
  });
}

async function enter(path, values, form) {
  const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ""));
  const { session_token: token } = await ask("POST", path, given);
  form.reset();
  setupToken = null;
  session = token;
  sessionStorage.setItem("session", token);
  await show();
  byId("main").focus();
}

onSubmit("login", (values, form) => enter("/account/login", values, form));
onSubmit("setup", async (values, form) => {
  try {
    await enter("/account/setup", { ...values, setup_token: setupToken }, form);
  } catch (error) {
    // A link that is no use leads to the ordinary door, with what was wrong.
    if (error.status !== 403) throw error;
    setupToken = null;
    await show();
    throw error;
  }
});
onSubmit("forgot", async (values, form) => {
  await ask("POST", "/account/password-reset", values);
  form.reset();
  say(word("forgotDone"));
});
onSubmit("reset", async (values, form) => {
  try {
    await ask("POST", "/account/password-reset/confirm", { ...values, token: resetToken });
  } catch (error) {
    // A link that is no use leads to where another one is asked for; a password that is too short does not.
    if (error.status === 403) resetToken = null;
    await show();
    throw error;
  }
  form.reset();
  resetToken = session = null;
  sessionStorage.removeItem("session");
  await show();
  say(word("resetDone"));
});
onSubmit("signup", (values, form) => enter("/account/signup", values, form));
onSubmit("new-key", async (values, form) => {
  const { manages, ...key } = values;
  const made = await ask("POST", "/account/keys", manages ? { ...key, manages: [manages] } : key);
  form.reset();
  await showKeys();
  say(word("madeKey"));
  reveal(made.api_key);
});
byId("logout").addEventListener("click", () =>
  attempt(async () => {
    await ask("POST", "/account/logout", {});
    leave();
    say(word("bye"));
  }),
);
byId("language").addEventListener("click", () => {
  language = language === "ko" ? "en" : "ko";
  localStorage.setItem("language", language);
  attempt(show);
});
byId("webhook-show").addEventListener("click", () =>
  attempt(async () => tellWebhooks(await ask("GET", "/account/webhook-secret"))),
);
byId("webhook-rotate").addEventListener("click", () =>
  attempt(async () => {
    if (confirm(word("askSecret"))) tellWebhooks(await ask("POST", "/account/webhook-secret/rotate", {}));
  }),
);
byId("copy").addEventListener("click", () =>
  attempt(async () => {
    await navigator.clipboard.writeText(byId("secret-value").textContent);
    say(word("copied"));
  }),
);
byId("secret-done").addEventListener("click", () => {
  byId("secret").hidden = true;
  byId("secret-value").textContent = "";
  byId("sample").textContent = "";
});

// A link that is pasted where the page is open already loads nothing.
window.addEventListener("hashchange", () => {
  setupToken = takeToken("setup") ?? setupToken;
  resetToken = takeToken("reset") ?? resetToken;
  attempt(show);
});

attempt(show);
