-- Accounts, keys, permissions, and the quota ledger.

create table accounts (
    id            text primary key,
    email         text unique check (email = lower(email)),
    name          text not null default '',
    role          text not null check (role in ('user', 'admin', 'service')),
    password_hash text,
    disabled_at   timestamptz,
    unlimited     boolean not null default false,
    zone          text not null default 'UTC',
    next_zone     text,
    next_zone_day date,
    tokens_a_day  bigint not null check (tokens_a_day >= 0),
    images_a_day  bigint not null check (images_a_day >= 0),
    key_count     int not null check (key_count >= 0),
    requests_a_minute   int not null default 0 check (requests_a_minute >= 0),
    concurrent_requests int not null default 0 check (concurrent_requests >= 0),
    webhook_secret text,
    created_at    timestamptz not null default now()
);

-- What an account may do, by glob. No operations: every one.
create table rules (
    id         bigint generated always as identity primary key,
    account_id text not null references accounts (id) on delete cascade,
    provider   text not null,
    model      text not null,
    operations smallint[] not null default '{}',
    created_at timestamptz not null default now()
);
create index rules_of_account on rules (account_id);

create table keys (
    id           text primary key,
    account_id   text not null references accounts (id) on delete cascade,
    name         text not null default '',
    prefix       text not null,
    digest       bytea not null unique,
    scopes       jsonb not null default '[]',
    tokens_a_day bigint check (tokens_a_day >= 0),
    images_a_day bigint check (images_a_day >= 0),
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
create index keys_of_account on keys (account_id);

-- How much of a day's quota is out of reach for others: settled, or held by a block. `subject` is an account or a key.
create table quota_days (
    subject text not null,
    day     date not null,
    tokens  bigint not null default 0 check (tokens >= 0),
    images  bigint not null default 0 check (images >= 0),
    primary key (subject, day)
);

-- A piece of an account's day, held by one process. What is neither settled nor returned of it is outstanding.
create table blocks (
    id              uuid primary key,
    account_id      text not null,
    key_id          text not null,
    day             date not null,
    holder          text not null,
    tokens          bigint not null check (tokens >= 0),
    images          bigint not null check (images >= 0),
    settled_tokens  bigint not null default 0 check (settled_tokens >= 0),
    settled_images  bigint not null default 0 check (settled_images >= 0),
    returned_tokens bigint not null default 0 check (returned_tokens >= 0),
    returned_images bigint not null default 0 check (returned_images >= 0),
    created_at      timestamptz not null default now(),
    expires_at      timestamptz not null,
    closed_at       timestamptz,
    check (settled_tokens + returned_tokens <= tokens),
    check (settled_images + returned_images <= images)
);
create index blocks_open on blocks (expires_at) where closed_at is null;
create index blocks_of_account on blocks (account_id, day);

-- Reservations that have been open for a while, as last reported by who holds them.
create table open_reservations (
    reservation_id text primary key,
    block_id       uuid not null references blocks (id),
    so_far         bytea not null,
    reported_at    timestamptz not null default now()
);
create index open_reservations_of_block on open_reservations (block_id);

-- The truth. Every row moves an amount between two places, so that all places together always sum to zero:
--   borrow   quota   -> block      a block was made
--   settle   block   -> spent      a reservation was settled
--   orphan   block   -> spent      a reservation's holder vanished: charged as last reported
--   return   block   -> quota      given back unspent
--   expire   block   -> quota      taken back when the block ended
--   late     quota   -> spent      settled after its block had ended (negative: an orphan had been charged too much)
create table ledger (
    id                bigint generated always as identity primary key,
    at                timestamptz not null default now(),
    kind              text not null check (kind in ('borrow', 'settle', 'orphan', 'return', 'expire', 'late')),
    account_id        text not null,
    key_id            text not null,
    day               date not null,
    block_id          uuid not null,
    reference         text not null,
    tokens            bigint not null,
    images            bigint not null,
    uncovered_tokens  bigint not null default 0,
    uncovered_images  bigint not null default 0,
    operation         smallint,
    provider          text,
    model             text,
    prompt_tokens     bigint,
    completion_tokens bigint,
    reasoning_tokens  bigint,
    cached_tokens     bigint,
    delivered_images  bigint,
    exact             boolean,
    request_id        text,
    ended_at          timestamptz,
    check (kind = 'late' or (tokens >= 0 and images >= 0)),
    unique (reference, kind)
);
create index ledger_of_account on ledger (account_id, day);
create index ledger_of_block on ledger (block_id);

create function ledger_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger is append-only';
end $$;
create trigger ledger_append_only before update or delete or truncate on ledger
    for each statement execute function ledger_is_append_only();
