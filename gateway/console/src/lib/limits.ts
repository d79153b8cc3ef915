import { t, type Word } from "./i18n.svelte";
import type { Limits } from "./types";

export const PERIODS = ["a_day", "a_month", "in_total"] as const;
export const AMOUNTS = ["usd", "tokens", "images", "requests"] as const;
export const PACES = ["requests_per_minute", "tokens_per_minute", "concurrent_requests"] as const;

export function limitName(limit: string): string {
  const found = /^(usd|tokens|images|requests)_(a_day|a_month|in_total)$/.exec(limit);
  if (!found) return t(limit as Word);
  return t(found[2] as Word, { what: t(found[1] as Word) });
}

/** Return the limits of a form's fields: those that are empty and were set are null, so that they are taken away. */
export function limitsOf(fields: Record<string, string>, before: Limits = {}): Limits {
  const result: Limits = {};
  for (const [name, value] of Object.entries(fields)) {
    const text = value.trim();
    const kept = before[name];
    if (text === "") {
      if (kept !== undefined && kept !== null) result[name] = null;
    } else if (String(kept ?? "") !== text) result[name] = name.startsWith("usd") ? text : Number(text);
  }
  return result;
}
