-- Batches of messages: their requests, who answers them now, and their results.

create table tasks.message_batches (
    id           text primary key,
    number       bigint generated always as identity unique,
    account_id   text not null,
    key_id       text not null,
    -- What is sent with each request beside its body: names and values of headers.
    headers      text[] not null default '{}',
    created_at   timestamptz not null default now(),
    expires_at   timestamptz not null,
    cancelled_at timestamptz,
    ended_at     timestamptz,
    size_bytes   bigint not null,
    total        int not null check (total > 0),
    succeeded    int not null default 0,
    errored      int not null default 0,
    canceled     int not null default 0,
    expired      int not null default 0,
    check ((ended_at is not null) = (succeeded + errored + canceled + expired = total))
);
create index message_batches_of_account on tasks.message_batches (account_id, number desc);
create index message_batches_ended on tasks.message_batches (ended_at) where ended_at is not null;
create index message_batches_open on tasks.message_batches (expires_at) where ended_at is null;

-- States: 1 waits, 2 is being answered, 3 succeeded, 4 errored, 5 canceled, 6 expired.
create table tasks.message_batch_requests (
    batch_id     text not null references tasks.message_batches (id) on delete cascade,
    place        int not null,
    account_id   text not null,
    custom_id    text not null,
    state        smallint not null default 1 check (state between 1 and 6),
    not_before   timestamptz not null default now(),
    -- How often an answer was refused, and the request put back.
    tries        int not null default 0,
    -- The fence: it grows with every claim, and a result counts only under the number that its worker was given.
    fence        bigint not null default 0,
    leased_until timestamptz,
    params       bytea not null,
    result       bytea,
    primary key (batch_id, place),
    unique (batch_id, custom_id),
    check ((state = 2) = (leased_until is not null)),
    check ((state in (3, 4)) = (result is not null))
);
create index message_batch_requests_waiting on tasks.message_batch_requests (account_id, not_before, batch_id, place)
    where state = 1;
create index message_batch_requests_leased on tasks.message_batch_requests (leased_until) where state = 2;
