// "Show the code": values as the languages of the samples write them. What is attached is a file beside the code.
import type { Json } from "./api";

export interface Sample {
  name: string;
  setUp: string;
  code: string;
  /** What it reads from the folder that it runs in. */
  files: Beside[];
  /** Settings that this client's API has no field for. */
  leaves: string[];
}

export const KEY = "MOA_API_KEY";

/** A file beside the code. */
export class Beside {
  constructor(
    readonly name: string,
    readonly type: string,
    /** The data URL that the page has of it. */
    readonly url: string,
    /** What of it the request carries. */
    readonly form: "url" | "base64" | "bytes" = "url",
  ) {}

  as(form: Beside["form"]): Beside {
    return new Beside(this.name, this.type, this.url, form);
  }
}

interface Language {
  none: string;
  yes: string;
  no: string;
  text: (text: string) => string;
  file: (file: Beside) => string;
}

const plain = (text: string): string => JSON.stringify(text);
/** Return a text between single quotes of a shell. */
export const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

const PYTHON: Language = {
  none: "None", yes: "True", no: "False", text: plain,
  file: ({ name, type, form }) => {
    const bytes = `Path(${plain(name)}).read_bytes()`;
    const base64 = `base64.b64encode(${bytes}).decode()`;
    return form === "bytes" ? bytes : form === "base64" ? base64 : `${plain(`data:${type};base64,`)} + ${base64}`;
  },
};
const JAVASCRIPT: Language = {
  none: "null", yes: "true", no: "false", text: plain,
  file: ({ name, type }) => `${plain(`data:${type};base64,`)} + (await readFile(${plain(name)})).toString("base64")`,
};
/** JSON in a here-document: as it is, or one in which the shell puts files. */
const LITERAL: Language = { none: "null", yes: "true", no: "false", text: plain, file: () => '""' };
const SHELL: Language = {
  ...LITERAL,
  text: (text) => plain(text).replace(/[\\$`]/g, "\\$&"),
  file: ({ name, type }) => `"data:${type};base64,$(base64 < ${quoted(name)} | tr -d '\\n')"`,
};

function written(value: unknown, as: Language, step: number, indent: number): string {
  if (value === null || value === undefined) return as.none;
  if (value === true || value === false) return value ? as.yes : as.no;
  if (typeof value === "string") return as.text(value);
  if (value instanceof Beside) return as.file(value);
  if (typeof value !== "object") return JSON.stringify(value);
  const pad = " ".repeat(indent + step);
  const end = `\n${" ".repeat(indent)}`;
  const list = Array.isArray(value);
  const rows = list
    ? value.map((one) => pad + written(one, as, step, indent + step))
    : Object.entries(value).filter(([, one]) => one !== undefined).map(([name, one]) => `${pad}${as.text(name)}: ${written(one, as, step, indent + step)}`);
  if (!rows.length) return list ? "[]" : "{}";
  const inside = `\n${rows.join(",\n")}${end}`;
  return list ? `[${inside}]` : `{${inside}}`;
}

export const python = (value: unknown, indent = 0): string => written(value, PYTHON, 4, indent);
export const javascript = (value: unknown, indent = 0): string => written(value, JAVASCRIPT, 2, indent);
export const keywords = (body: Json): string =>
  Object.entries(body).filter(([, value]) => value !== undefined).map(([name, value]) => `    ${name}=${python(value, 4)},`).join("\n");

/** Return a body as curl reads it from its input: no limit of a command line holds for that. */
export function hereDocument(body: Json): string {
  const files = filesOf(body).length > 0;
  return `--data-binary @- <<${files ? "JSON" : "'JSON'"}\n${written(body, files ? SHELL : LITERAL, 2, 0)}\nJSON`;
}

function besides(value: unknown): Beside[] {
  if (value instanceof Beside) return [value];
  return value && typeof value === "object" ? Object.values(value).flatMap(besides) : [];
}

/** Return the files that a value reads, each once. */
export const filesOf = (value: unknown): Beside[] => [...new Map(besides(value).map((file) => [file.name, file])).values()];

/** Return the lines that import modules of Python's own, as a value needs them. `writes`: a picture is written, too. */
export function imports(value: unknown, modules: string[] = ["os"], writes = false): string {
  const forms = new Set(besides(value).map((file) => file.form));
  const names = new Set([...modules, ...(forms.has("url") || forms.has("base64") ? ["base64"] : [])]);
  const lines = [...names].sort().map((name) => `import ${name}`);
  return [...lines, ...(forms.size || writes ? ["from pathlib import Path"] : [])].join("\n");
}

/** Return the line that opens a gRPC channel to the page's origin. */
export function channel(origin: string): string {
  const url = new URL(origin);
  const target = plain(`${url.hostname}:${url.port || (url.protocol === "https:" ? 443 : 80)}`);
  return url.protocol === "https:"
    ? `channel = grpc.secure_channel(${target}, grpc.ssl_channel_credentials())`
    : `channel = grpc.insecure_channel(${target})`;
}
export const STUBS = "make stubs && pip install grpcio dist/moa_api-*.whl";
