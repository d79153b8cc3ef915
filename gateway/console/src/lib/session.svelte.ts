// Who is logged in, and the one-time links that lead here. Tabs tell each other when that changes.
import { ask, hooks, Refused, type Json } from "./api";
import { t } from "./i18n.svelte";
import type { Account } from "./types";

export interface Methods {
  password: boolean;
  sign_up: string;
  password_reset: boolean;
  oidc?: { name: string; start_url: string };
}

class Session {
  account = $state<Account | null>(null);
  /** Whether it is known yet who is there. */
  known = $state(false);
  ended = $state(false);
  setup = $state("");
  reset = $state("");
  oidc = $state("");
  /** How often an identity was linked: who shows them reads them again. */
  linked = $state(0);
  /** Whoever has an account joins a team with it, anybody else signs up. */
  invitation = $state("");
  /** Whether the three first steps are to be shown. */
  fresh = $state(false);
  methods = $state<Methods>({ password: true, sign_up: "open", password_reset: true });

  get admin(): boolean {
    return this.account?.role === "ROLE_ADMIN";
  }

  get owner(): boolean {
    return this.account?.team_role === "TEAM_ROLE_OWNER";
  }
}

export const session = new Session();
const tabs = new BroadcastChannel("moa-session");

/** Take a one-time link out of the address: what stands behind # is sent to nobody, and leaves the history here. */
export function takeLinks(): void {
  const found = new URLSearchParams(location.hash.replace(/^#\/?/, ""));
  const taken = ["setup", "reset", "oidc", "invitation"].filter((name) => found.get(name));
  if (!taken.length) return;
  session.setup = found.get("setup") ?? session.setup;
  session.reset = found.get("reset") ?? session.reset;
  session.invitation = found.get("invitation") ?? session.invitation;
  session.oidc = found.get("oidc") ?? "";
  // Whoever came back from an identity provider goes on where they were.
  const after = session.oidc ? (sessionStorage.getItem(AFTER) ?? "") : "";
  sessionStorage.removeItem(AFTER);
  history.replaceState(null, "", location.pathname + (after.startsWith("#/") ? after : ""));
}

const AFTER = "moa-after";

export async function look(): Promise<void> {
  try {
    const { account } = await ask<{ account: Account }>("/account/me", { quiet: true });
    session.account = account;
    session.ended = false;
  } catch (error) {
    if (error instanceof Refused && error.status !== 401 && error.status !== 403) throw error;
    session.account = null;
  } finally {
    session.known = true;
  }
}

export async function findMethods(): Promise<void> {
  try {
    const found = await ask<Methods>("/auth/methods", { quiet: true });
    session.methods = { ...session.methods, ...found };
  } catch {
    // A gateway without other ways to log in.
  }
}

export async function enter(path: string, values: Json): Promise<void> {
  const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ""));
  const { account } = await ask<{ account: Account }>(path, { method: "POST", body: given, quiet: true });
  session.account = account;
  session.ended = false;
  tabs.postMessage("entered");
}

export async function leave(): Promise<void> {
  let next = "";
  try {
    next = String((await ask("/account/logout", { method: "POST", body: {}, quiet: true })).end_session_url ?? "");
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 401) throw error;
  }
  session.account = null;
  session.ended = false;
  tabs.postMessage("left");
  if (/^https?:\/\//.test(next)) location.assign(next);
}

const LINKING = "moa-link";

/** Return the link that an invitation comes by. */
export const invitationLink = (invitation: string): string =>
  `${location.origin}${location.pathname}#invitation=${encodeURIComponent(invitation)}`;

/** Send the browser to the identity provider: to log in, or to link the identity to the account that is here. */
export function visitProvider(linking: boolean): void {
  if (linking) sessionStorage.setItem(LINKING, "1");
  else sessionStorage.removeItem(LINKING);
  sessionStorage.setItem(AFTER, location.hash);
  location.href = `${session.methods.oidc?.start_url}?return_to=${encodeURIComponent("/")}`;
}

/** Link the identity of a browser that has come back for that; return whether it has. */
export async function linkIdentity(): Promise<boolean> {
  const asked = sessionStorage.getItem(LINKING) !== null && session.oidc !== "" && session.account !== null;
  if (!asked) return false;
  sessionStorage.removeItem(LINKING);
  const came = session.oidc;
  session.oidc = "";
  if (came !== "ready") throw new Error(t("oidcFailed", { why: came.replace("failed:", "") }));
  await ask("/account/identities", { method: "POST", body: {}, quiet: true });
  session.linked++;
  return true;
}

hooks.ended = () => {
  if (!session.account) return;
  session.account = null;
  session.ended = true;
  tabs.postMessage("left");
};
hooks.offline = () => t("offline");
hooks.bare = (status) => t("bareStatus", { status });
tabs.onmessage = () => {
  look().catch(() => {});
};
