-- Tasks, their logs, outputs, credits and webhooks.

-- States: 1 pending, 2 submitted, 3 running, 4 succeeded, 5 failed, 6 cancelled (moa.task.v1.TaskState).
create table tasks.tasks (
    id              text primary key,
    number          bigint generated always as identity unique,
    account_id      text not null,
    key_id          text not null,
    dialect         text not null check (dialect in ('native', 'tasks', 'predictions', 'desk')),
    provider        text not null,
    model           text not null,
    work            bytea not null,
    given           bytea not null default '',
    idempotency_key text,
    fingerprint     bytea not null,
    resumed_from    text unique,
    state           smallint not null check (state between 1 and 6),
    created_at      timestamptz not null,
    not_before      timestamptz not null,
    deadline        timestamptz not null,
    started_at      timestamptz,
    ended_at        timestamptz,
    attempts        int not null default 0,
    -- The fence: it grows with every claim, and what a worker writes counts only under the number that it was given.
    fence           bigint not null default 0,
    leased_by       text,
    leased_until    timestamptz,
    cancel_asked_at timestamptz,
    last_sequence   bigint not null default 0,
    progress        bytea,
    desk            bytea,
    error           bytea,
    -- Whether everything was made and lies in the spool or the store: then nothing is made again.
    made            boolean not null default false,
    price_micros    bigint not null check (price_micros >= 0),
    consumed_micros bigint not null default 0 check (consumed_micros in (0, price_micros)),
    quota_lease     text,
    reservation_id  text,
    webhook_url     text not null default '',
    webhook_events  text[] not null default '{}',
    check ((state >= 4) = (ended_at is not null)),
    check ((state in (2, 3)) = (leased_until is not null)),
    check (state = 4 or consumed_micros = 0)
);
create unique index tasks_by_idempotency_key on tasks.tasks (account_id, idempotency_key);
create index tasks_waiting on tasks.tasks (account_id, not_before, number) where state = 1;
create index tasks_leased on tasks.tasks (leased_until) where state in (2, 3);
create index tasks_open_by_deadline on tasks.tasks (deadline) where state < 4;
create index tasks_of_account on tasks.tasks (account_id, number desc);
create index tasks_ended on tasks.tasks (ended_at) where state >= 4;

create table tasks.events (
    task_id  text not null references tasks.tasks (id) on delete cascade,
    sequence bigint not null check (sequence > 0),
    terminal boolean not null,
    event    bytea not null,
    primary key (task_id, sequence)
);
-- However the processes race or die, a task ends once.
create unique index events_end_once on tasks.events (task_id) where terminal;

create function tasks.log_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'the log is append-only';
end $$;
create trigger events_append_only before update on tasks.events
    for each statement execute function tasks.log_is_append_only();

-- Objects in the store that belong to a task. `kind`: output, preview, or orphan (of an attempt that was given up).
create table tasks.objects (
    name     text primary key,
    task_id  text not null references tasks.tasks (id),
    kind     text not null check (kind in ('output', 'preview', 'orphan')),
    position int not null,
    output   bytea not null
);
create unique index objects_outputs on tasks.objects (task_id, position) where kind = 'output';
create index objects_of_task on tasks.objects (task_id);

-- What was made and is not in the store yet. `name` is chosen before the upload, so that a second try replaces the
-- first.
create table tasks.spool (
    task_id  text not null references tasks.tasks (id) on delete cascade,
    position int not null,
    name     text not null,
    data     bytea not null,
    output   bytea not null,
    primary key (task_id, position)
);
alter table tasks.spool alter column data set storage external;

-- Fairness and credits, an account a row. What can be spent: granted (as auth last said) - spent - held.
create table tasks.accounts (
    account_id     text primary key,
    claimed_at     timestamptz not null default 'epoch',
    granted_micros bigint not null default 0 check (granted_micros >= 0),
    spent_micros   bigint not null default 0 check (spent_micros >= 0),
    held_micros    bigint not null default 0 check (held_micros >= 0)
);

-- The truth about credits. `reference` names the task.
create table tasks.credit_entries (
    id         bigint generated always as identity primary key,
    at         timestamptz not null default now(),
    account_id text not null,
    kind       text not null check (kind in ('hold', 'release', 'charge')),
    reference  text not null,
    micros     bigint not null check (micros >= 0),
    unique (reference, kind)
);
create index credit_entries_of_account on tasks.credit_entries (account_id, id);
create trigger credit_entries_append_only before update or delete on tasks.credit_entries
    for each statement execute function tasks.log_is_append_only();

-- What the quota service must still be told: settlements of what succeeded, returns of what did not. Sent until it
-- answers; it books each id once.
create table tasks.quota_outbox (
    task_id    text primary key,
    message    bytea not null,
    settles    boolean not null,
    next_at    timestamptz not null default now(),
    attempts   int not null default 0
);
create index quota_outbox_due on tasks.quota_outbox (next_at);

-- Webhooks. States: 1 pending, 2 delivered, 3 dead (moa.task.v1.DeliveryState).
create table tasks.deliveries (
    id           text primary key,
    number       bigint generated always as identity unique,
    task_id      text not null references tasks.tasks (id) on delete cascade,
    account_id   text not null,
    event        text not null,
    url          text not null,
    state        smallint not null default 1 check (state between 1 and 3),
    attempts     int not null default 0,
    created_at   timestamptz not null default now(),
    next_at      timestamptz not null default now(),
    leased_until timestamptz,
    last_status  int not null default 0,
    last_error   text not null default '',
    delivered_at timestamptz
);
create unique index deliveries_end_once on tasks.deliveries (task_id) where event = 'completed';
create index deliveries_due on tasks.deliveries (next_at) where state = 1;
create index deliveries_of_account on tasks.deliveries (account_id, number desc);

-- Which generation of an account's webhook secret is in force; the secrets themselves are derived, never stored.
create table tasks.webhook_keys (
    account_id text primary key,
    generation int not null default 1,
    rotated_at timestamptz not null default 'epoch'
);
