// The models that whoever is logged in may use, asked for once a minute at most.
import { get } from "./api";
import { session } from "./session.svelte";
import type { Model } from "./types";

class Models {
  list = $state<Model[]>([]);
  loaded = $state(false);
  #at = 0;
  #whose = "";
  #reading: Promise<void> | null = null;

  /** Resolve when the models of who is logged in are here. */
  load(force = false): Promise<void> {
    const who = session.account?.account_id ?? "";
    if (who !== this.#whose) {
      this.#whose = who;
      this.#reading = null;
      this.list = [];
      this.loaded = false;
    } else if (!force && this.list.length && Date.now() - this.#at < 60_000) return Promise.resolve();
    if (this.#reading) return this.#reading;
    const reading = this.#read(who).finally(() => {
      if (this.#reading === reading) this.#reading = null;
    });
    this.#reading = reading;
    return reading;
  }

  /** Resolve when there are models to choose from: at once where some are here, however old. */
  async some(): Promise<void> {
    if (!this.list.length || this.#whose !== session.account?.account_id) await this.load();
  }

  async #read(who: string): Promise<void> {
    const { data = [] } = await get<{ data: Model[] }>("/v1/models?limit=1000");
    // Somebody else may have logged in meanwhile.
    if (who !== this.#whose) return;
    this.list = data;
    this.loaded = true;
    this.#at = Date.now();
  }

  get texts(): Model[] {
    return this.list.filter((model) => (model.output_modalities ?? []).includes("text"));
  }

  get images(): Model[] {
    return this.list.filter((model) => (model.output_modalities ?? []).includes("image"));
  }

  find(id: string): Model | undefined {
    return this.list.find((model) => model.id === id);
  }
}

export const models = new Models();

/** Return what an answer cost in US dollars by the listed prices; null where they are not known. */
export function costOf(model: Model | undefined, prompt: number, completion: number): number | null {
  if (!model) return null;
  if (!model.prices) return model.owned_by.startsWith("local-") ? 0 : null;
  const { input, output } = model.prices;
  if (typeof input !== "number" && typeof output !== "number") return null;
  return (prompt * (input ?? 0) + completion * (output ?? 0)) / 1_000_000;
}
