// The code of a chat's request for each client.
import type { Json } from "./api";
import { Beside, channel, filesOf, hereDocument, imports, javascript, KEY, keywords, python, STUBS, type Sample } from "./code";

const DATA = /^data:([^;,]+);base64,/;
const ENDINGS: Record<string, string> = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif", "application/pdf": "pdf" };

/** Return a body in which files stand where their contents were. `names` has those of data URLs. */
function withFiles(body: Json, names: Map<string, string>): Json {
  const made = new Map<string, Beside>();
  const taken = new Set<string>();
  const beside = (url: string): Beside => {
    const before = made.get(url);
    if (before) return before;
    const type = DATA.exec(url)?.[1] ?? "application/octet-stream";
    const given = names.get(url) || `file.${ENDINGS[type] ?? "bin"}`;
    const [, stem = given, ending = ""] = /^(.+?)(\.[^.]*)?$/s.exec(given) ?? [];
    let name = given;
    for (let number = 2; taken.has(name); number++) name = `${stem}-${number}${ending}`;
    taken.add(name);
    const file = new Beside(name, type, url);
    made.set(url, file);
    return file;
  };
  const change = (value: unknown): unknown => {
    if (typeof value === "string") return DATA.test(value) ? beside(value) : value;
    if (Array.isArray(value)) return value.map(change);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, change(one)]));
    return value;
  };
  return {
    ...body,
    messages: (body.messages as Json[]).map((message) => (Array.isArray(message.content) ? { ...message, content: change(message.content) } : message)),
  };
}

function sourceOf(part: Json): { file?: Beside; url?: string; name?: string } {
  const source = part.image_url?.url ?? part.file?.file_data;
  return source instanceof Beside ? { file: source, name: part.file?.filename } : { url: String(source ?? ""), name: part.file?.filename };
}

function googleParts(content: unknown): Json[] {
  if (typeof content === "string") return [{ text: content }];
  return (content as Json[]).map((part) => {
    if (part.type === "text") return { text: part.text };
    const { file, url } = sourceOf(part);
    return file ? { inline_data: { mime_type: file.type, data: file.as("bytes") } } : { file_data: { file_uri: url } };
  });
}

function google(body: Json): { contents: Json[]; config: Json } {
  const contents: Json[] = [];
  const config: Json = {};
  const names = new Map<string, string>();
  for (const message of body.messages as Json[]) {
    if (message.role === "system") config.system_instruction = message.content;
    else if (message.role === "tool")
      contents.push({ role: "user", parts: [{ function_response: { name: names.get(message.tool_call_id) ?? "", response: { result: message.content } } }] });
    else {
      const parts = message.content ? googleParts(message.content) : [];
      for (const call of message.tool_calls ?? []) {
        names.set(call.id, call.function.name);
        parts.push({ function_call: { name: call.function.name, args: JSON.parse(call.function.arguments || "{}") } });
      }
      contents.push({ role: message.role === "assistant" ? "model" : "user", parts });
    }
  }
  const renamed = [["temperature", "temperature"], ["top_p", "top_p"], ["max_completion_tokens", "max_output_tokens"], ["seed", "seed"]] as const;
  for (const [from, to] of renamed) if (body[from] !== undefined) config[to] = body[from];
  if (body.tools)
    config.tools = [{ function_declarations: (body.tools as Json[]).map(({ function: f }) => ({ name: f.name, ...(f.description ? { description: f.description } : {}), parameters_json_schema: f.parameters })) }];
  if (body.response_format) {
    config.response_mime_type = "application/json";
    config.response_json_schema = body.response_format.json_schema.schema;
  }
  return { contents, config };
}

/** Return the contract's request, as protobuf's JSON has it. */
function contract(body: Json): Json {
  const names = new Map<string, string>();
  const partOf = (part: Json): Json => {
    if (part.type === "text") return { text: part.text };
    const { file, url, name } = sourceOf(part);
    const source = file ? { data: file.as("base64"), mime_type: file.type } : { url };
    return part.type === "file" ? { file: { ...source, name } } : { image: source };
  };
  const messages = (body.messages as Json[]).map((message) => {
    if (message.role === "tool")
      return { role: "ROLE_TOOL", parts: [{ tool_result: { tool_call_id: message.tool_call_id, name: names.get(message.tool_call_id), content: message.content } }] };
    const parts: Json[] = typeof message.content === "string" ? [{ text: message.content }] : ((message.content as Json[] | null) ?? []).map(partOf);
    for (const { id, function: f } of message.tool_calls ?? []) {
      names.set(id, f.name);
      parts.push({ tool_call: { id, name: f.name, arguments_json: f.arguments } });
    }
    return { role: `ROLE_${String(message.role).toUpperCase()}`, parts };
  });
  const sampling = { temperature: body.temperature, top_p: body.top_p, seed: body.seed };
  const format = body.response_format?.json_schema;
  return {
    model: body.model,
    messages,
    max_tokens: body.max_completion_tokens,
    sampling: Object.values(sampling).some((value) => value !== undefined) ? sampling : undefined,
    tools: (body.tools as Json[] | undefined)?.map(({ function: f }) => ({ name: f.name, description: f.description, parameters_json: JSON.stringify(f.parameters ?? {}) })),
    response_format: format && { kind: "KIND_JSON_SCHEMA", name: format.name, schema_json: JSON.stringify(format.schema) },
    reasoning: body.reasoning_effort && { effort: `EFFORT_${String(body.reasoning_effort).toUpperCase()}` },
    stream: true,
  };
}

const unless = (empty: boolean, text: string): string => (empty ? "" : text);

export function chatSamples(asked: Json, origin: string, names: Map<string, string> = new Map()): Sample[] {
  const body = withFiles({ ...asked, stream: true }, names);
  const files = filesOf(body);
  const tools = Boolean(body.tools);
  const { contents, config } = google(body);
  const request = contract(body);
  return [
    {
      name: "curl", setUp: `export ${KEY}=…`, files, leaves: [],
      code: `curl -N ${origin}/v1/chat/completions \\\n  -H "Authorization: Bearer $${KEY}" \\\n  -H "Content-Type: application/json" \\\n  ${hereDocument(body)}`,
    },
    {
      name: "Python · openai", setUp: "pip install openai", files, leaves: [],
      code: `${imports(body)}

from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key=os.environ["${KEY}"])
stream = client.chat.completions.create(
${keywords(body)}
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)${unless(!tools, `
        for call in chunk.choices[0].delta.tool_calls or []:
            print(call.function.name or "", call.function.arguments or "", end="", flush=True)`)}
print()`,
    },
    {
      name: "Python · google-genai", setUp: "pip install google-genai", files,
      leaves: body.reasoning_effort ? ["reasoning_effort"] : [],
      code: `${imports(contents)}

from google import genai

client = genai.Client(api_key=os.environ["${KEY}"], http_options={"base_url": "${origin}"})
stream = client.models.generate_content_stream(
    model=${python(body.model)},
    contents=${python(contents, 4)},${unless(!Object.keys(config).length, `\n    config=${python(config, 4)},`)}
)
for chunk in stream:
    print(chunk.text or "", end="", flush=True)${unless(!tools, `
    for call in chunk.function_calls or []:
        print(call.name, call.args)`)}
print()`,
    },
    {
      name: "JavaScript", setUp: "node chat.mjs", files, leaves: [],
      code: `${unless(!files.length, 'import { readFile } from "node:fs/promises";\n\n')}const answer = await fetch("${origin}/v1/chat/completions", {
  method: "POST",
  headers: { authorization: \`Bearer \${process.env.${KEY}}\`, "content-type": "application/json" },
  body: JSON.stringify(${javascript(body, 2)}),
});
if (!answer.ok) throw new Error(await answer.text());

let rest = "";
for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + piece).split("\\n");
  rest = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data: {")) continue;
    const delta = JSON.parse(line.slice(6)).choices[0]?.delta;
    process.stdout.write(delta?.content ?? "");${unless(!tools, `
    for (const call of delta?.tool_calls ?? []) process.stdout.write((call.function.name ?? "") + (call.function.arguments ?? ""));`)}
  }
}
console.log();`,
    },
    {
      name: "Python · gRPC", setUp: STUBS, files, leaves: [],
      code: `${imports(request)}

import grpc
from google.protobuf import json_format

from moa.text.v1 import text_service_pb2, text_service_pb2_grpc

${channel(origin)}
request = json_format.ParseDict(
    ${python(request, 4)},
    text_service_pb2.GenerateTextRequest(),
)
metadata = [("authorization", "Bearer " + os.environ["${KEY}"])]
for answer in text_service_pb2_grpc.TextServiceStub(channel).GenerateText(request, metadata=metadata):
    for event in answer.events:
        if event.HasField("text"):
            print(event.text.text, end="", flush=True)${unless(!tools, `
        if event.HasField("tool_call"):
            print(event.tool_call.name, event.tool_call.arguments_json, end="", flush=True)`)}
        if event.HasField("error"):
            raise SystemExit(event.error.message)
print()`,
    },
  ];
}
