// What accounts are called, for pages whose answers name them by their ids.
import { get } from "./api";
import type { Account } from "./types";

class Names {
  #known = $state<Record<string, string>>({});
  #asked = new Set<string>();

  /** Return what an account is called, or its id while that is not known. */
  of(id: string): string {
    return this.#known[id] || id;
  }

  /** Ask for those that are not known. */
  learn(ids: Iterable<string>): void {
    for (const id of ids) {
      if (!id.startsWith("acc_") || this.#asked.has(id)) continue;
      this.#asked.add(id);
      get<{ account: Account }>(`/admin/accounts/${encodeURIComponent(id)}`)
        .then(({ account }) => (this.#known[id] = account.email || account.name))
        .catch(() => this.#asked.delete(id));
    }
  }
}

export const names = new Names();
