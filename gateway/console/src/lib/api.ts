// Calls of the documented REST and SSE. The session is in a cookie that counts beside the header `moa-console` alone.

export type Json = Record<string, any>;

export class Refused extends Error {
  constructor(
    public status: number,
    message: string,
    public code = "",
    public retryAfterS = 0,
    public requestId = "",
    public body: Json = {},
  ) {
    super(message);
  }

  /** The field that is refused, by its path; empty: none is named. */
  get param(): string {
    return String(this.body.error?.param ?? "");
  }
}

/** Called when an answer says that nobody is logged in. */
export const hooks: { ended: () => void; offline: () => string; bare: (status: number) => string } = {
  ended: () => {},
  offline: () => "offline",
  bare: (status) => `HTTP ${status}`,
};

async function refusal(answer: Response): Promise<Refused> {
  const text = await answer.text().catch(() => "");
  let found: Json = {};
  try {
    found = JSON.parse(text);
  } catch {
    // Not of the gateway: what stands between answered.
  }
  const error = found.error ?? found;
  const message = error.message ?? found.detail ?? hooks.bare(answer.status);
  const code = String(error.code ?? error.type ?? "");
  const wait = Number(answer.headers.get("retry-after") ?? 0);
  return new Refused(answer.status, String(message), code, wait, answer.headers.get("x-request-id") ?? "", found);
}

export interface Sent {
  method?: string;
  body?: unknown;
  form?: FormData;
  signal?: AbortSignal;
  headers?: Record<string, string>;
  /** A refusal for want of a session is the caller's own to handle. */
  quiet?: boolean;
}

export async function send(path: string, sent: Sent = {}): Promise<Response> {
  const headers: Record<string, string> = { "moa-console": "1", ...sent.headers };
  if (sent.body !== undefined) headers["content-type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(path, {
      method: sent.method ?? (sent.body !== undefined || sent.form ? "POST" : "GET"),
      headers,
      body: sent.form ?? (sent.body === undefined ? undefined : JSON.stringify(sent.body)),
      signal: sent.signal,
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch (error) {
    if (sent.signal?.aborted) throw error;
    throw new Refused(0, hooks.offline());
  }
  if (answer.ok) return answer;
  const error = await refusal(answer);
  if (error.status === 401 && !sent.quiet) hooks.ended();
  throw error;
}

export async function ask<T = Json>(path: string, sent: Sent = {}): Promise<T> {
  const answer = await send(path, sent);
  return (await answer.json().catch(() => ({}))) as T;
}

export const get = <T = Json>(path: string): Promise<T> => ask<T>(path);
export const post = <T = Json>(path: string, body: unknown = {}): Promise<T> => ask<T>(path, { method: "POST", body });
export const patch = <T = Json>(path: string, body: unknown): Promise<T> => ask<T>(path, { method: "PATCH", body });
export const remove = <T = Json>(path: string): Promise<T> => ask<T>(path, { method: "DELETE" });

/** Read all pages of a list, up to a bound. */
export async function all<T>(path: string, member: string, most = 2000): Promise<T[]> {
  const rows: T[] = [];
  let token = "";
  do {
    const mark = path.includes("?") ? "&" : "?";
    const page = await get(token ? `${path}${mark}page_token=${encodeURIComponent(token)}` : path);
    rows.push(...((page[member] as T[] | undefined) ?? []));
    token = (page.next_page_token as string | undefined) ?? "";
  } while (token && rows.length < most);
  return rows;
}

export interface Event {
  name: string;
  data: string;
}

/** Yield the events of a stream as they come (the server-sent events of the HTML standard). */
export async function* events(answer: Response): AsyncGenerator<Event> {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let name = "";
  let data: string[] = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { name: name || "message", data: data.join("\n") };
          name = "";
          data = [];
        } else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line.startsWith("event:")) name = line.slice(6).trim();
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Save what an address answers as a file. */
export async function download(path: string, name: string): Promise<void> {
  const answer = await send(path);
  const blob = await answer.blob();
  // Excel reads a table as UTF-8 only by its mark.
  saveBlob(name.endsWith(".csv") ? new Blob(["\ufeff", blob], { type: "text/csv" }) : blob, name);
}

export function saveBlob(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Stored files are signed by path: the page's own origin serves them, whatever public address links begin with. */
export function local(link: string): string {
  try {
    const url = new URL(link, location.origin);
    return url.pathname + url.search;
  } catch {
    return "";
  }
}
