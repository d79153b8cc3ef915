// The code of a picture's request for each client.
import type { Json } from "./api";
import { Beside, channel, filesOf, imports, javascript, KEY, keywords, hereDocument, python, quoted, STUBS, type Sample } from "./code";

const TAKE = `python3 -c 'import base64, json, sys; open("result.png", "wb").write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))'`;

function beside(image: Json | undefined, name: string): Beside | undefined {
  if (!image) return undefined;
  const type = String(image.mime_type);
  const ending = type === "image/jpeg" ? "jpg" : type.replace(/^image\//, "");
  return new Beside(`${name}.${ending}`, type, `data:${type};base64,${image.data}`);
}

/** Return the samples of a task's work. Steps, LoRAs and the like are the contract's own: OpenAI's and Google's APIs have no field for them. */
export function imageSamples(work: Json, origin: string): Sample[] {
  const picture = beside(work.images?.[0], "picture");
  const mask = beside(work.mask, "mask");
  const own = Object.entries({ ...work.diffusion }).filter(([, value]) => value !== undefined).map(([name]) => name);
  const size = work.width && work.height ? `${work.width}x${work.height}` : undefined;
  const fields: Json = {
    model: work.model, prompt: work.prompt || undefined, n: work.count > 1 ? work.count : undefined, size, response_format: "b64_json",
    negative_prompt: work.negative_prompt, seed: work.seed === undefined ? undefined : Number(work.seed),
  };
  const openai = picture ? [edits(fields, picture, mask, origin)] : [generations(fields, origin)];
  const files = [picture, mask].filter((file) => file !== undefined);
  return [
    ...openai.flatMap(({ curl, client, script }): Sample[] => [
      { name: "curl", setUp: `export ${KEY}=…`, files, leaves: own, code: curl },
      { name: "Python · openai", setUp: "pip install openai", files, leaves: own, code: client },
      { name: "Python · google-genai", setUp: "pip install google-genai", files: picture ? [picture] : [], ...google(work, origin, picture, own) },
      { name: "JavaScript", setUp: "node picture.mjs", files, leaves: own, code: script },
    ]),
    { name: "Python · gRPC", setUp: STUBS, files, leaves: [], code: contract(work, origin, picture, mask) },
  ];
}

interface Codes {
  curl: string;
  client: string;
  script: string;
}

/** Return the keywords of a call of OpenAI's client: what it does not know goes beside. */
function called(fields: Json): string {
  const { negative_prompt, seed, ...known } = fields;
  const extra = Object.fromEntries(Object.entries({ negative_prompt, seed }).filter(([, value]) => value !== undefined));
  return `${keywords(known)}${Object.keys(extra).length ? `\n    extra_body=${python(extra, 4)},` : ""}`;
}

const READ = `if (!answer.ok) throw new Error(await answer.text());
const { data } = await answer.json();
await writeFile("result.png", Buffer.from(data[0].b64_json, "base64"));`;

const client = (origin: string, method: string, values: string): string => `${imports(null, ["base64", "os"], true)}

from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key=os.environ["${KEY}"])
answer = client.images.${method}(
${values}
)
Path("result.png").write_bytes(base64.b64decode(answer.data[0].b64_json))`;

function generations(fields: Json, origin: string): Codes {
  const url = `${origin}/v1/images/generations`;
  return {
    curl: `curl -s ${url} \\\n  -H "Authorization: Bearer $${KEY}" \\\n  -H "Content-Type: application/json" \\\n  ${hereDocument(fields).replace("\n", ` \\\n  | ${TAKE}\n`)}`,
    client: client(origin, "generate", called(fields)),
    script: `import { writeFile } from "node:fs/promises";

const answer = await fetch("${url}", {
  method: "POST",
  headers: { authorization: \`Bearer \${process.env.${KEY}}\`, "content-type": "application/json" },
  body: JSON.stringify(${javascript(fields, 2)}),
});
${READ}`,
  };
}

function edits(fields: Json, picture: Beside, mask: Beside | undefined, origin: string): Codes {
  const url = `${origin}/v1/images/${fields.prompt ? "edits" : "variations"}`;
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  const parts = [["image", picture], ...(mask ? [["mask", mask]] : [])] as [string, Beside][];
  return {
    curl: [
      `curl -s ${url}`,
      `-H "Authorization: Bearer $${KEY}"`,
      ...given.map(([name, value]) => `--form-string ${quoted(`${name}=${value}`)}`),
      ...parts.map(([name, file]) => `-F ${name}=@${file.name}`),
      `| ${TAKE}`,
    ].join(" \\\n  "),
    client: client(
      origin,
      fields.prompt ? "edit" : "create_variation",
      `${called(fields)}\n${parts.map(([name, file]) => `    ${name}=Path(${python(file.name)}),`).join("\n")}`,
    ),
    script: `import { readFile, writeFile } from "node:fs/promises";

const form = new FormData();
${given.map(([name, value]) => `form.set(${JSON.stringify(name)}, ${JSON.stringify(String(value))});`).join("\n")}
${parts.map(([name, file]) => `form.set("${name}", new Blob([await readFile("${file.name}")]), "${file.name}");`).join("\n")}
const answer = await fetch("${url}", {
  method: "POST",
  headers: { authorization: \`Bearer \${process.env.${KEY}}\` },
  body: form,
});
${READ}`,
  };
}

/** Google's API has no variations: what asks for one is words. */
const LIKE_IT = "Another picture like this one.";

function google(work: Json, origin: string, picture: Beside | undefined, own: string[]): Pick<Sample, "code" | "leaves"> {
  const beyond = { width: work.width, height: work.height, count: work.count > 1 ? work.count : undefined, negative_prompt: work.negative_prompt, seed: work.seed, mask: work.mask };
  const leaves = [...Object.entries(beyond).filter(([, value]) => value !== undefined).map(([name]) => name), ...(work.prompt ? [] : ["operation"]), ...own];
  const contents = picture
    ? [{ inline_data: { mime_type: picture.type, data: picture.as("bytes") } }, { text: work.prompt || LIKE_IT }]
    : work.prompt;
  const code = `${imports(contents, ["os"], true)}

from google import genai

client = genai.Client(api_key=os.environ["${KEY}"], http_options={"base_url": "${origin}"})
answer = client.models.generate_content(
    model=${python(work.model)},
    contents=${python(contents, 4)},
    config={"response_modalities": ["IMAGE"]},
)
for part in answer.candidates[0].content.parts:
    if part.inline_data:
        Path("result.png").write_bytes(part.inline_data.data)`;
  return { code, leaves };
}

function contract(work: Json, origin: string, picture: Beside | undefined, mask: Beside | undefined): string {
  const inputOf = (file: Beside | undefined) => file && { data: file.as("base64"), mime_type: file.type };
  const request = { ...work, images: picture && [inputOf(picture)], mask: inputOf(mask), stream: true };
  return `${imports(request, ["os"], true)}

import grpc
from google.protobuf import json_format

from moa.image.v1 import image_service_pb2, image_service_pb2_grpc

${channel(origin)}
request = json_format.ParseDict(
    ${python(request, 4)},
    image_service_pb2.GenerateImageRequest(),
)
metadata = [("authorization", "Bearer " + os.environ["${KEY}"])]
for answer in image_service_pb2_grpc.ImageServiceStub(channel).GenerateImage(request, metadata=metadata):
    for event in answer.events:
        if event.HasField("progress"):
            print(f"step {event.progress.step} of {event.progress.steps}")
        if event.HasField("image"):
            Path("result.png").write_bytes(event.image.image.data)
        if event.HasField("error"):
            raise SystemExit(event.error.message)`;
}
