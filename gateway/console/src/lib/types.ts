// What the documented REST answers with, as far as the console reads it.

export interface Limits {
  [name: string]: number | string | null | undefined;
}

export interface Account {
  account_id: string;
  email: string;
  name: string;
  role: string;
  disabled: boolean;
  unlimited: boolean;
  limits: Limits;
  granted_micro_credits: string;
  zone: string;
  next_zone: string;
  next_zone_at?: string;
  created_at: string;
  priority: string;
  team_id: string;
  team_role: string;
  deleted_at?: string;
}

export interface Rule {
  provider: string;
  model: string;
  operations: string[];
}

export interface Key {
  key_id: string;
  name: string;
  prefix: string;
  scopes: Rule[];
  created_at: string;
  expires_at?: string;
  revoked_at?: string;
  last_used_at?: string;
  priority: string;
  manages?: string[];
  bound_by?: string;
  limits?: Limits;
  [limit: string]: any;
}

export interface Standing {
  limit: string;
  key_id: string;
  most: string;
  used: string;
  resets_at?: string;
  owner: string;
  name: string;
}

export interface Model {
  id: string;
  owned_by: string;
  context_tokens: number | null;
  max_output_tokens: number | null;
  input_modalities: string[];
  output_modalities: string[];
  capabilities: string[];
  prices: Record<string, number> | null;
  retires: string | null;
  successor: string | null;
  loras?: string[];
  status: string;
}

export interface SpendRow {
  time: string;
  group: string;
  name: string;
  usd: string;
  requests: string;
  unpriced_requests: string;
  prompt_tokens: string;
  completion_tokens: string;
  tokens: string;
  images: string;
}

export interface Team {
  team_id: string;
  name: string;
  account_id: string;
  limits: Limits;
  rules: Rule[];
  rule_warnings?: string[];
  created_at: string;
  warnings?: { webhook_url: string; emails: string[] };
  request_log?: { on?: boolean; content?: boolean; days?: number };
}

export interface Task {
  id: string;
  state: string;
  model: string;
  provider: string;
  work: Record<string, any>;
  progress?: { stage: string; step: number; steps: number; eta?: string; preview_link?: string };
  outputs: { link: string; mime_type: string; width: number; height: number; name: string; receipt?: Record<string, any> }[];
  error?: { message: string; reason: string };
  created_at: string;
  started_at?: string;
  ended_at?: string;
  attempts: number;
}

/** What routers saw of a target, over a time. */
export interface Traffic {
  requests: string;
  errors: string;
  fallbacks: string;
  first_token_p50_ms?: number;
  first_token_p95_ms?: number;
}

export interface Provider {
  provider_id: string;
  adapter: string;
  makes: string;
  host: string;
  configured: boolean;
  why: string;
  key_source: string;
  forms: { credentials: { name: string; variable: string }[] }[];
  stored_keys: { variable: string; last_four: string; set_at?: string; set_by: string }[];
  stored_keys_unreadable: boolean;
  models: number;
  unavailable: string;
  traffic: Traffic;
  resting: { model: string; until: string; routers: number }[];
  limits: { model: string; at: string; rates: Record<string, number | undefined> }[];
}
