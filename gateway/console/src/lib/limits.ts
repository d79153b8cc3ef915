import { number, t, usd, type Word } from "./i18n.svelte";
import type { Limits } from "./types";

export const PERIODS = ["a_day", "a_month", "in_total"] as const;
export const AMOUNTS = ["usd", "tokens", "images", "requests"] as const;
export const PACES = ["requests_per_minute", "tokens_per_minute", "images_per_minute", "usd_per_minute", "concurrent_requests"] as const;

export function limitName(limit: string): string {
  const found = /^(usd|tokens|images|requests)_(a_day|a_month|in_total)$/.exec(limit);
  if (!found) return t(limit as Word);
  return t(found[2] as Word, { what: t(found[1] as Word) });
}

/** Return what limits say, in words; empty: there are none. */
export function limitsText(limits: Limits = {}): string {
  return Object.entries(limits)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => `${limitName(name)}: ${name.startsWith("usd") ? usd(value) : number(value)}`)
    .join(" · ");
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
