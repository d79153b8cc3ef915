// The little of Markdown that models write, as data: the page shows it as elements with text in them, never as markup.

export interface Span {
  text: string;
  kind: "plain" | "code" | "bold" | "italic" | "link";
  href?: string;
}

export type Block =
  | { kind: "code"; language: string; text: string }
  | { kind: "heading"; level: number; spans: Span[] }
  | { kind: "list"; ordered: boolean; start: number; items: Span[][] }
  | { kind: "quote"; spans: Span[] }
  | { kind: "table"; head: Span[][]; rows: Span[][][] }
  | { kind: "text"; spans: Span[] };

const SPAN = /(`+)(.+?)\1|\*\*(.+?)\*\*|(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g;

export function spans(text: string): Span[] {
  const found: Span[] = [];
  let at = 0;
  for (const match of text.matchAll(SPAN)) {
    if (match.index > at) found.push({ text: text.slice(at, match.index), kind: "plain" });
    if (match[2] !== undefined) found.push({ text: match[2], kind: "code" });
    else if (match[3] !== undefined) found.push({ text: match[3], kind: "bold" });
    else if (match[4] !== undefined) found.push({ text: match[4], kind: "italic" });
    else found.push({ text: match[5] ?? "", kind: "link", href: match[6] });
    at = match.index + match[0].length;
  }
  if (at < text.length) found.push({ text: text.slice(at), kind: "plain" });
  return found;
}

const cells = (line: string): Span[][] => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => spans(cell.trim()));

export function blocks(text: string): Block[] {
  const found: Block[] = [];
  const lines = text.split("\n");
  let plain: string[] = [];
  const flush = () => {
    const joined = plain.join("\n").trim();
    if (joined) found.push({ kind: "text", spans: spans(joined) });
    plain = [];
  };
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? "";
    const fence = /^\s*(```+|~~~+)\s*([\w+#.-]*)/.exec(line);
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    const item = /^\s*([-*+]|(\d{1,9})[.)])\s+(.*)$/.exec(line);
    if (fence) {
      flush();
      const code: string[] = [];
      while (++at < lines.length && !(lines[at] ?? "").trim().startsWith(fence[1] ?? "```")) code.push(lines[at] ?? "");
      found.push({ kind: "code", language: fence[2] ?? "", text: code.join("\n") });
    } else if (heading) {
      flush();
      found.push({ kind: "heading", level: heading[1]?.length ?? 1, spans: spans(heading[2] ?? "") });
    } else if (item) {
      flush();
      const ordered = item[2] !== undefined;
      const items = [spans(item[3] ?? "")];
      for (let next = /^\s*(?:[-*+]|\d{1,9}[.)])\s+(.*)$/.exec(lines[at + 1] ?? ""); next; next = /^\s*(?:[-*+]|\d{1,9}[.)])\s+(.*)$/.exec(lines[at + 1] ?? "")) {
        items.push(spans(next[1] ?? ""));
        at++;
      }
      found.push({ kind: "list", ordered, start: Number(item[2] ?? 1), items });
    } else if (line.startsWith(">")) {
      flush();
      const quoted = [line.slice(1)];
      while ((lines[at + 1] ?? "").startsWith(">")) quoted.push((lines[++at] ?? "").slice(1));
      found.push({ kind: "quote", spans: spans(quoted.map((one) => one.trim()).join("\n")) });
    } else if (line.includes("|") && /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)+\|?\s*$/.test(lines[at + 1] ?? "")) {
      flush();
      const head = cells(line);
      const rows: Span[][][] = [];
      at++;
      while ((lines[at + 1] ?? "").includes("|")) rows.push(cells(lines[++at] ?? ""));
      found.push({ kind: "table", head, rows });
    } else if (!line.trim()) flush();
    else plain.push(line);
  }
  flush();
  return found;
}
