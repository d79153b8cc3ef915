-- Log-ins that an identity provider vouches for (docs/decisions/0036-oidc.md).
--
-- Processes of the release before know nothing of them. An account that was deleted by one of them keeps its row here, by which
-- nobody logs in: it is disabled.

-- Whose an account is, by the issuer's name and the issuer's own name of the person. An address decides nothing.
create table identities (
    id           text primary key,
    issuer       text not null,
    subject      text not null,
    account_id   text not null references accounts (id) on delete cascade,
    created_at   timestamptz not null default now(),
    last_used_at timestamptz,
    unique (issuer, subject)
);
create index identities_of_account on identities (account_id);

-- Log-ins that have come back, so that none does twice. What else is known of one is sealed in its browser's cookie.
create table oidc_states (
    digest  bytea primary key,
    ends_at timestamptz not null
);
create index oidc_states_by_end on oidc_states (ends_at);

-- Whom the issuer vouched for, sealed, until the page has asked for a session; for minutes.
create table oidc_arrivals (
    digest  bytea primary key,
    sealed  bytea not null,
    ends_at timestamptz not null
);
create index oidc_arrivals_by_end on oidc_arrivals (ends_at);

alter table accounts
    -- The team and role that its groups gave (`team:role`). What stands in `team_id` and `team_role` is of groups as long as it
    -- is the same; null, or another: somebody chose it.
    add column team_by_groups  text,
    -- Whether groups made it an administrator.
    add column admin_by_groups boolean not null default false;

-- The issuer's token, sealed, by which the session with the issuer is ended, too.
alter table sessions add column id_token bytea;
