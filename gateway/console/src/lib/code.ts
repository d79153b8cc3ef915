// "Show the code": the same request for each client, as it runs with MOA_API_KEY in the environment.
import type { Json } from "./api";

export interface Sample {
  name: string;
  setUp: string;
  code: string;
}

const KEY = "MOA_API_KEY";
const json = (value: unknown, indent = 2): string => JSON.stringify(value, null, indent);
/** Return JSON between single quotes of a shell. */
const quoted = (value: unknown): string => `'${json(value).replaceAll("'", `'\\''`)}'`;

/** Return a value as Python writes it: JSON's words are others there. */
export function python(value: unknown, indent = 0): string {
  const pad = " ".repeat(indent + 4);
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const end = `\n${" ".repeat(indent)}`;
  if (Array.isArray(value)) return value.length ? `[\n${value.map((one) => pad + python(one, indent + 4)).join(",\n")}${end}]` : "[]";
  const rows = Object.entries(value).map(([name, one]) => `${pad}${JSON.stringify(name)}: ${python(one, indent + 4)}`);
  return rows.length ? `{\n${rows.join(",\n")}${end}}` : "{}";
}

const keywords = (body: Json): string =>
  Object.entries(body).map(([name, value]) => `    ${name}=${python(value, 4)},`).join("\n");

/** Return the host and port of the page's origin, as gRPC channels name them. */
function target(origin: string): string {
  const url = new URL(origin);
  return `${url.hostname}:${url.port || (url.protocol === "https:" ? 443 : 80)}`;
}

function googleParts(content: unknown): Json[] {
  if (typeof content === "string") return [{ text: content }];
  return (content as Json[]).map((part) => {
    if (part.type === "text") return { text: part.text };
    const url = String(part.image_url?.url ?? part.file?.file_data ?? "");
    const found = /^data:([^;,]+);base64,(.*)$/s.exec(url);
    return found ? { inline_data: { mime_type: found[1], data: found[2] } } : { file_data: { file_uri: url } };
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

export function chatSamples(body: Json, origin: string): Sample[] {
  const streamed = { ...body, stream: true };
  const { contents, config } = google(body);
  const texts = (body.messages as Json[]).map((message) => ({
    role: message.role as string,
    text: typeof message.content === "string" ? message.content : ((message.content as Json[] | null)?.find((part) => part.type === "text")?.text ?? ""),
  }));
  return [
    {
      name: "curl",
      setUp: `export ${KEY}=…`,
      code: `curl -N ${origin}/v1/chat/completions \\\n  -H "Authorization: Bearer $${KEY}" \\\n  -H "Content-Type: application/json" \\\n  -d ${quoted(streamed)}`,
    },
    {
      name: "Python · openai",
      setUp: "pip install openai",
      code: `import os

from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key=os.environ["${KEY}"])
stream = client.chat.completions.create(
${keywords(streamed)}
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()`,
    },
    {
      name: "Python · google-genai",
      setUp: "pip install google-genai",
      code: `import os

from google import genai

client = genai.Client(api_key=os.environ["${KEY}"], http_options={"base_url": "${origin}"})
stream = client.models.generate_content_stream(
    model=${JSON.stringify(body.model)},
    contents=${python(contents, 4)},${Object.keys(config).length ? `\n    config=${python(config, 4)},` : ""}
)
for chunk in stream:
    print(chunk.text or "", end="", flush=True)
print()`,
    },
    {
      name: "JavaScript",
      setUp: "node chat.mjs",
      code: `const answer = await fetch("${origin}/v1/chat/completions", {
  method: "POST",
  headers: { authorization: \`Bearer \${process.env.${KEY}}\`, "content-type": "application/json" },
  body: JSON.stringify(${json(streamed).replaceAll("\n", "\n  ")}),
});
if (!answer.ok) throw new Error(await answer.text());

let rest = "";
for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + piece).split("\\n");
  rest = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data: {")) continue;
    process.stdout.write(JSON.parse(line.slice(6)).choices[0]?.delta?.content ?? "");
  }
}
console.log();`,
    },
    {
      name: "Python · gRPC",
      setUp: "make stubs && pip install grpcio dist/moa_api-*.whl",
      code: `import os

import grpc

from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc

ROLES = {
    "system": text_pb2.ROLE_SYSTEM,
    "user": text_pb2.ROLE_USER,
    "assistant": text_pb2.ROLE_ASSISTANT,
}
messages = ${python(texts.filter((one) => one.role !== "tool" && one.text))}
channel = grpc.${origin.startsWith("https:") ? `secure_channel("${target(origin)}", grpc.ssl_channel_credentials())` : `insecure_channel("${target(origin)}")`}
request = text_service_pb2.GenerateTextRequest(
    model=${JSON.stringify(body.model)},
    messages=[
        text_pb2.Message(role=ROLES[one["role"]], parts=[text_pb2.Part(text=one["text"])]) for one in messages
    ],
    stream=True,
)
metadata = [("authorization", "Bearer " + os.environ["${KEY}"])]
for answer in text_service_pb2_grpc.TextServiceStub(channel).GenerateText(request, metadata=metadata):
    for event in answer.events:
        if event.HasField("text"):
            print(event.text.text, end="", flush=True)
print()`,
    },
  ];
}

export function imageSamples(work: Json, origin: string): Sample[] {
  const plain: Json = { model: work.model, prompt: work.prompt };
  if (work.width && work.height) plain.size = `${work.width}x${work.height}`;
  if (work.negative_prompt) plain.negative_prompt = work.negative_prompt;
  if (work.seed !== undefined) plain.seed = Number(work.seed);
  if (work.count > 1) plain.n = work.count;
  const body: Json = { ...plain, response_format: "b64_json" };
  const { model, prompt, size, n, ...extra } = plain;
  const known: Json = { model, prompt, ...(size ? { size } : {}), ...(n ? { n } : {}), response_format: "b64_json" };
  return [
    {
      name: "curl",
      setUp: `export ${KEY}=…`,
      code: `curl -s ${origin}/v1/images/generations \\\n  -H "Authorization: Bearer $${KEY}" \\\n  -H "Content-Type: application/json" \\\n  -d ${quoted(body)} \\\n  | python3 -c 'import base64, json, sys; open("picture.png", "wb").write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))'`,
    },
    {
      name: "Python · openai",
      setUp: "pip install openai",
      code: `import base64
import os
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key=os.environ["${KEY}"])
answer = client.images.generate(
${keywords(known)}${Object.keys(extra).length ? `\n    extra_body=${python(extra, 4)},` : ""}
)
Path("picture.png").write_bytes(base64.b64decode(answer.data[0].b64_json))`,
    },
    {
      name: "Python · google-genai",
      setUp: "pip install google-genai",
      code: `import os
from pathlib import Path

from google import genai

client = genai.Client(api_key=os.environ["${KEY}"], http_options={"base_url": "${origin}"})
answer = client.models.generate_content(
    model=${JSON.stringify(work.model)},
    contents=${JSON.stringify(work.prompt)},
    config={"response_modalities": ["IMAGE"]},
)
for part in answer.candidates[0].content.parts:
    if part.inline_data:
        Path("picture.png").write_bytes(part.inline_data.data)`,
    },
    {
      name: "JavaScript",
      setUp: "node picture.mjs",
      code: `import { writeFile } from "node:fs/promises";

const answer = await fetch("${origin}/v1/images/generations", {
  method: "POST",
  headers: { authorization: \`Bearer \${process.env.${KEY}}\`, "content-type": "application/json" },
  body: JSON.stringify(${json(body).replaceAll("\n", "\n  ")}),
});
if (!answer.ok) throw new Error(await answer.text());
const { data } = await answer.json();
await writeFile("picture.png", Buffer.from(data[0].b64_json, "base64"));`,
    },
    {
      name: "Python · gRPC",
      setUp: "make stubs && pip install grpcio dist/moa_api-*.whl",
      code: `import os
from pathlib import Path

import grpc

from moa.image.v1 import image_service_pb2, image_service_pb2_grpc

channel = grpc.${origin.startsWith("https:") ? `secure_channel("${target(origin)}", grpc.ssl_channel_credentials())` : `insecure_channel("${target(origin)}")`}
request = image_service_pb2.GenerateImageRequest(
    model=${JSON.stringify(work.model)},
    prompt=${JSON.stringify(work.prompt)},
    stream=True,
)
metadata = [("authorization", "Bearer " + os.environ["${KEY}"])]
for answer in image_service_pb2_grpc.ImageServiceStub(channel).GenerateImage(request, metadata=metadata):
    for event in answer.events:
        if event.HasField("progress"):
            print(f"step {event.progress.step} of {event.progress.steps}")
        if event.HasField("image"):
            Path("picture.png").write_bytes(event.image.image.data)`,
    },
  ];
}
