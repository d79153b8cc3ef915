import { en } from "./words.en";
import { ko } from "./words.ko";

export type Word = keyof typeof en;
export type Language = "en" | "ko";

const WORDS: Record<Language, Record<Word, string>> = { en, ko };

function remembered(): Language {
  const kept = localStorage.getItem("language");
  if (kept === "en" || kept === "ko") return kept;
  return navigator.language.startsWith("ko") ? "ko" : "en";
}

class Chosen {
  language = $state<Language>(remembered());
}

export const chosen = new Chosen();

export function speak(language: Language): void {
  chosen.language = language;
  localStorage.setItem("language", language);
  document.documentElement.lang = language;
}

/** Return a word with its values; what has none, as a state that a newer gateway names, stays as it is. */
export function t(word: Word, values: Record<string, string | number> = {}): string {
  return (WORDS[chosen.language][word] ?? word).replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? ""));
}

/** Return a word that an answer named, or what it is where there is no word for it. */
export function maybe(prefix: string, name: string): string {
  const word = `${prefix}${name}` as Word;
  return WORDS[chosen.language][word] ?? name;
}

/** Return in how many days, in words. */
export const inDays = (days: number): string => new Intl.RelativeTimeFormat(chosen.language).format(days, "day");

export const number = (value: unknown): string => Number(value ?? 0).toLocaleString(chosen.language);
export const usd = (value: unknown): string => {
  const amount = Number(value ?? 0);
  const digits = amount !== 0 && Math.abs(amount) < 1 ? 6 : 2;
  return amount.toLocaleString(chosen.language, {
    style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: digits,
  });
};
export const day = (time?: string | null): string =>
  time ? new Date(time).toLocaleDateString(chosen.language, { dateStyle: "medium" }) : t("never");
export const moment = (time?: string | null): string =>
  time ? new Date(time).toLocaleString(chosen.language, { dateStyle: "medium", timeStyle: "short" }) : t("never");
export function seconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

class Clock {
  now = $state(Date.now());
}
const clock = new Clock();
setInterval(() => (clock.now = Date.now()), 20_000);

/** Return how long ago a time was, in words. */
export function ago(time?: string | null): string {
  if (!time) return t("never");
  // What was shown is shown anew as time goes by.
  const passed = (new Date(time).getTime() - Math.max(clock.now, Date.now())) / 1000;
  const format = new Intl.RelativeTimeFormat(chosen.language, { numeric: "auto" });
  const steps: [number, Intl.RelativeTimeFormatUnit][] = [[60, "second"], [60, "minute"], [24, "hour"], [30, "day"], [12, "month"]];
  let value = passed;
  for (const [size, unit] of steps) {
    if (Math.abs(value) < size) return format.format(Math.round(value), unit);
    value /= size;
  }
  return format.format(Math.round(value), "year");
}
