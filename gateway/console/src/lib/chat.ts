// A conversation as a tree: each message knows what it follows, so that other answers and changed questions are branches.
import { costOf } from "./models.svelte";
import { events, Refused, send, type Json } from "./api";
import type { Model } from "./types";

export interface Attached {
  kind: "image" | "text" | "file";
  name: string;
  /** A data URL, or the text itself. */
  data: string;
}

export interface Call {
  id: string;
  name: string;
  arguments: string;
}

export interface Facts {
  model: string;
  ms: number;
  firstMs: number;
  promptTokens: number;
  completionTokens: number;
  cost: number | null;
  finish: string;
}

export interface Node {
  id: string;
  parent: string;
  role: "user" | "assistant" | "tool";
  text: string;
  reasoning: string;
  attached: Attached[];
  calls: Call[];
  /** Which call a tool's answer is for. */
  callId: string;
  facts: Facts | null;
  error: string;
}

export interface Settings {
  model: string;
  other: string;
  system: string;
  temperature: string;
  topP: string;
  maxTokens: string;
  seed: string;
  effort: string;
  tools: string;
  schema: string;
}

export interface Chat {
  id: string;
  account: string;
  title: string;
  at: number;
  nodes: Record<string, Node>;
  /** The last message of the branch that is shown. */
  head: string;
  settings: Settings;
}

export const EMPTY: Settings = {
  model: "", other: "", system: "", temperature: "", topP: "", maxTokens: "", seed: "", effort: "", tools: "", schema: "",
};

export function node(id: string, parent: string, role: Node["role"], text = ""): Node {
  return { id, parent, role, text, reasoning: "", attached: [], calls: [], callId: "", facts: null, error: "" };
}

/** Return the messages from the first one to `head`. */
export function branch(chat: Chat, head: string): Node[] {
  const found: Node[] = [];
  for (let at = chat.nodes[head]; at; at = chat.nodes[at.parent]) found.unshift(at);
  return found;
}

export function siblings(chat: Chat, of: Node): Node[] {
  return Object.values(chat.nodes).filter((one) => one.parent === of.parent && one.role === of.role);
}

/** Return the end of the newest branch that goes through a message. */
export function tip(chat: Chat, id: string): string {
  for (;;) {
    const next = Object.values(chat.nodes).filter((one) => one.parent === id).at(-1);
    if (!next) return id;
    id = next.id;
  }
}

function parts(one: Node): unknown {
  if (!one.attached.length) return one.text;
  const found: Json[] = [];
  for (const file of one.attached) {
    if (file.kind === "image") found.push({ type: "image_url", image_url: { url: file.data } });
    else if (file.kind === "file") found.push({ type: "file", file: { filename: file.name, file_data: file.data } });
    else found.push({ type: "text", text: `${file.name}:\n\n${file.data}` });
  }
  if (one.text) found.push({ type: "text", text: one.text });
  return found;
}

/** The settings that are numbers: what each is called in a request, and how it is written. */
const NUMBERS = {
  temperature: ["temperature", /^-?\d+(\.\d+)?$/],
  topP: ["top_p", /^-?\d+(\.\d+)?$/],
  maxTokens: ["max_completion_tokens", /^\d+$/],
  seed: ["seed", /^-?\d+$/],
} as const;
export type Numbered = keyof typeof NUMBERS;
export const NUMBERED = Object.keys(NUMBERS) as Numbered[];

/** A setting that is no number. */
export class NoNumber extends Error {
  constructor(public setting: Numbered) {
    super(setting);
  }
}

/** Return the number of a setting, however wide its digits are; undefined where it is empty. Throws NoNumber. */
export function numberOf(settings: Settings, name: Numbered): number | undefined {
  const text = settings[name].normalize("NFKC").trim();
  if (!text) return undefined;
  if (!NUMBERS[name][1].test(text)) throw new NoNumber(name);
  return Number(text);
}

/** Return the body of a request that asks for what follows `history`. Throws NoNumber, and SyntaxError for tools or a schema that are no JSON. */
export function bodyOf(history: Node[], settings: Settings, model: string): Json {
  const messages: Json[] = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  for (const one of history) {
    if (one.role === "tool") messages.push({ role: "tool", tool_call_id: one.callId, content: one.text });
    else if (one.role === "assistant") {
      // An answer that said nothing is no message.
      if (one.text || one.calls.length) messages.push({
        role: "assistant",
        content: one.text || null,
        ...(one.calls.length
          ? { tool_calls: one.calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } })) }
          : {}),
      });
    } else messages.push({ role: "user", content: parts(one) });
  }
  const body: Json = { model, messages };
  for (const name of NUMBERED) {
    const value = numberOf(settings, name);
    if (value !== undefined) body[NUMBERS[name][0]] = value;
  }
  if (settings.effort) body.reasoning_effort = settings.effort;
  if (settings.tools.trim()) {
    const tools = JSON.parse(settings.tools) as Json[];
    body.tools = (Array.isArray(tools) ? tools : [tools]).map((tool) => (tool.type ? tool : { type: "function", function: tool }));
  }
  if (settings.schema.trim())
    body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: JSON.parse(settings.schema) } };
  return body;
}

/** Ask, and write what comes into `into` as it comes. What broke off stays as far as it came, with why. */
export async function answer(body: Json, into: Node, model: Model | undefined, signal: AbortSignal): Promise<void> {
  const began = performance.now();
  const facts: Facts = { model: String(body.model), ms: 0, firstMs: 0, promptTokens: 0, completionTokens: 0, cost: null, finish: "" };
  let whole = false;
  try {
    const got = await send("/v1/chat/completions", { body: { ...body, stream: true, stream_options: { include_usage: true } }, signal });
    facts.model = got.headers.get("x-moa-model") ?? facts.model;
    for await (const event of events(got)) {
      if (event.data === "[DONE]") {
        whole = true;
        break;
      }
      const chunk = JSON.parse(event.data) as Json;
      if (chunk.error) throw new Refused(502, String(chunk.error.message ?? ""));
      if (chunk.usage) {
        facts.promptTokens = chunk.usage.prompt_tokens ?? 0;
        facts.completionTokens = chunk.usage.completion_tokens ?? 0;
        facts.cost = costOf(model, facts.promptTokens, facts.completionTokens);
      }
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      const delta = choice.delta ?? {};
      if (!facts.firstMs && (delta.content || delta.reasoning_content || delta.reasoning || delta.tool_calls)) facts.firstMs = performance.now() - began;
      into.text += delta.content ?? delta.refusal ?? "";
      into.reasoning += delta.reasoning_content ?? delta.reasoning ?? "";
      for (const part of delta.tool_calls ?? []) {
        const call = (into.calls[part.index ?? 0] ??= { id: "", name: "", arguments: "" });
        call.id ||= part.id ?? "";
        call.name += part.function?.name ?? "";
        call.arguments += part.function?.arguments ?? "";
      }
      if (choice.finish_reason) facts.finish = choice.finish_reason;
    }
    if (!whole) throw new Refused(0, "");
  } finally {
    facts.ms = performance.now() - began;
    into.facts = facts;
  }
}
