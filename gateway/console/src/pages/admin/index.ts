// Loaded when an administrator, or somebody in a team, first opens one of these pages.
export { default as Accounts } from "./Accounts.svelte";
export { default as Audit } from "./Audit.svelte";
export { default as Budgets } from "./Budgets.svelte";
export { default as Catalogue } from "./Catalogue.svelte";
export { default as Inference } from "./Inference.svelte";
export { default as Invitations } from "./Invitations.svelte";
export { default as Providers } from "./Providers.svelte";
export { default as Requests } from "./Requests.svelte";
export { default as Routes } from "./Routes.svelte";
export { default as Team } from "../Team.svelte";
export { default as Teams } from "./Teams.svelte";
