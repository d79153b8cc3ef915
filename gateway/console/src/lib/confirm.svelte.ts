interface Question {
  title: string;
  text: string;
  action: string;
}

class Answers {
  question = $state<Question | null>(null);
  #resolve: (value: boolean) => void = () => {};

  ask(question: Question): Promise<boolean> {
    this.#resolve(false);
    this.question = question;
    return new Promise((resolve) => (this.#resolve = resolve));
  }

  close(value: boolean): void {
    this.question = null;
    this.#resolve(value);
    this.#resolve = () => {};
  }
}

export const answers = new Answers();

/** Ask before something that cannot be undone. */
export const sure = (title: string, text: string, action: string): Promise<boolean> => answers.ask({ title, text, action });
