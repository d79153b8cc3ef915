-- Sessions, invitations, the audit log, and credits.

alter table accounts add column micro_credits bigint not null default 0 check (micro_credits >= 0);

create table sessions (
    digest     bytea primary key,
    account_id text not null references accounts (id) on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
create index sessions_of_account on sessions (account_id);

create table invitations (
    digest     bytea primary key,
    made_by    text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_by    text
);

-- What administrators did.
create table audit (
    id         bigint generated always as identity primary key,
    at         timestamptz not null default now(),
    actor      text not null,
    act        text not null,
    account_id text not null default '',
    details    text[] not null default '{}'
);
create index audit_of_account on audit (account_id, id);

-- Every change of an account's credits; their sum is the balance.
create table credits (
    id            bigint generated always as identity primary key,
    at            timestamptz not null default now(),
    account_id    text not null references accounts (id),
    reference     text not null,
    micro_credits bigint not null,
    unique (account_id, reference)
);

create function is_append_only() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name;
end $$;
create trigger audit_append_only before update or delete or truncate on audit
    for each statement execute function is_append_only();
create trigger credits_append_only before update or delete or truncate on credits
    for each statement execute function is_append_only();
create index accounts_by_time on accounts (created_at desc, id desc);
