// What is said of what was done, and the one way in which work of a button runs.
import { Refused } from "./api";
import { KINDS } from "./errors.ko";
import { chosen, t } from "./i18n.svelte";

export interface Notice {
  id: number;
  text: string;
  bad: boolean;
}

class Notices {
  list = $state<Notice[]>([]);
  #next = 1;

  say(text: string, bad = false): void {
    const id = this.#next++;
    this.list = [...this.list.slice(-3), { id, text, bad }];
    setTimeout(() => this.drop(id), bad ? 12_000 : 5_000);
  }

  drop(id: number): void {
    this.list = this.list.filter((notice) => notice.id !== id);
  }
}

export const notices = new Notices();

/** Return what to tell of a failure, with what can be done: its kind in the reader's language, then the server's words. */
export function explain(error: unknown): string {
  if (!(error instanceof Refused)) return error instanceof Error ? error.message : String(error);
  const kind = chosen.language === "ko" ? KINDS[error.code] : undefined;
  const said = kind ? `${kind} (${error.message})` : error.message;
  if (error.status === 429 && error.retryAfterS) return `${said} ${t("retryAfter", { seconds: error.retryAfterS })}`;
  if (error.status >= 500 && error.requestId) return `${said} ${t("requestId", { id: error.requestId })}`;
  return said;
}

/** Return what a form's submission runs: the second click of two, while the first is worked on, is none. */
export function submitting(work: () => Promise<unknown>): (event: SubmitEvent) => void {
  let busy = false;
  return async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    const form = event.currentTarget as HTMLElement;
    form.setAttribute("aria-busy", "true");
    await attempt(work);
    form.removeAttribute("aria-busy");
    busy = false;
  };
}

/** Return what a button runs that makes something anew: likewise. */
export function once(work: () => Promise<unknown>): () => void {
  let busy = false;
  return async () => {
    if (busy) return;
    busy = true;
    await attempt(work);
    busy = false;
  };
}

export async function attempt(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    notices.say(explain(error), true);
    return false;
  }
}
