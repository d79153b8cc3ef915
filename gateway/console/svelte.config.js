import { vitePreprocess } from "@sveltejs/vite-plugin-svelte";

export default {
  preprocess: vitePreprocess(),
  compilerOptions: {
    runes: true,
    modernAst: true,
    // What scrolls has to be reached by the keyboard, interactive or not (axe's scrollable-region-focusable).
    warningFilter: (warning) => warning.code !== "a11y_no_noninteractive_tabindex",
  },
};
