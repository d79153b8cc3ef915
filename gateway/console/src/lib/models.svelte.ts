// The models that whoever is logged in may use, asked for once a minute at most.
import { get } from "./api";
import type { Model } from "./types";

class Models {
  list = $state<Model[]>([]);
  loaded = $state(false);
  #at = 0;

  async load(force = false): Promise<void> {
    if (!force && this.texts.length && Date.now() - this.#at < 60_000) return;
    const { data = [] } = await get<{ data: Model[] }>("/v1/models?limit=1000");
    this.list = data;
    this.loaded = true;
    this.#at = Date.now();
  }

  forget(): void {
    this.#at = 0;
    this.list = [];
    this.loaded = false;
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
