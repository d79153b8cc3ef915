/** Takes what reads of one thing find: an answer that an earlier read gives later never replaces a newer one. */
export class Newest {
  #asked = 0;
  #taken = 0;

  async read<T>(work: () => Promise<T>, take: (found: T) => void): Promise<void> {
    const turn = ++this.#asked;
    const found = await work();
    if (turn < this.#taken) return;
    this.#taken = turn;
    take(found);
  }
}
