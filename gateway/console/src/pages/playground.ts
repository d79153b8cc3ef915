// Loaded when somebody first asks a model.
export { default as Chat } from "./Chat.svelte";
export { default as Images } from "./Images.svelte";
