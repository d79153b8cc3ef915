-- Batches that are handed to providers' batch APIs: which requests are in which, what holds their quota, and how far they
-- are.

alter table tasks.message_batches
    -- When what became of its undecided requests was looked at last, or until when somebody looks.
    add column deciding_until timestamptz,
    add column deciding_fence bigint not null default 0;

-- States: 1 is being handed over, 2 is at the provider, 3 is over.
create table tasks.provider_batches (
    id                text primary key,
    batch_id          text not null references tasks.message_batches (id) on delete cascade,
    provider          text not null,
    model             text not null,
    provider_batch_id text,
    state             smallint not null default 1 check (state between 1 and 3),
    cancel_sent       boolean not null default false,
    requests          int not null check (requests > 0),
    quota_lease       text not null,
    created_at        timestamptz not null default now(),
    next_at           timestamptz not null default now(),
    looks             int not null default 0,
    fence             bigint not null default 1,
    leased_until      timestamptz,
    unique (provider, provider_batch_id),
    check (state <> 2 or provider_batch_id is not null)
);
create index provider_batches_due on tasks.provider_batches (next_at) where state < 3;
create index provider_batches_of_batch on tasks.provider_batches (batch_id);

-- State 0: it is not decided how it is answered. State 7: it is handed over. The bounds are wider than before: what the
-- release before writes is within them.
alter table tasks.message_batch_requests
    drop constraint message_batch_requests_state_check,
    add column pack text,
    -- The reservation that pays, and what is kept of the request for its answer, encrypted.
    add column reservation_id text,
    add column handed bytea constraint message_batch_requests_state_check
        check (state between 0 and 7 and (state <> 7 or num_nulls(pack, handed) = 0));
create index message_batch_requests_undecided on tasks.message_batch_requests (batch_id, place) where state = 0;
create index message_batch_requests_handed on tasks.message_batch_requests (pack) where state = 7;
