// What is said of what was done, and the one way in which work of a button runs.
import { Refused } from "./api";
import { t } from "./i18n.svelte";

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

/** Return what to tell of a failure, with what can be done. */
export function explain(error: unknown): string {
  if (!(error instanceof Refused)) return error instanceof Error ? error.message : String(error);
  if (error.status === 429 && error.retryAfterS) return `${error.message} ${t("retryAfter", { seconds: error.retryAfterS })}`;
  if (error.status >= 500 && error.requestId) return `${error.message} ${t("requestId", { id: error.requestId })}`;
  return error.message;
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
