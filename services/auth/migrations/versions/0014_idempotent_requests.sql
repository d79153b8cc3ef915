-- Requests that callers gave an `Idempotency-Key`, with their answers, encrypted, for a day.
--
-- `owner` is whose answers share a room: an account, and of those who bring their own key each for themselves.

create table idempotent_requests (
    name         bytea primary key,          -- HMAC of owner, API key, operation and the caller's key
    claim_id     uuid not null unique,
    owner        text not null,
    fingerprint  bytea not null,             -- HMAC of what the request says
    request_id   text not null,
    leased_until timestamptz not null,
    kept_at      timestamptz,                -- when it became known what came of it
    lost         smallint not null default 0, -- moa.idempotency.v1.LostReason
    answer       bytea,
    size_bytes   bigint not null default 0,
    expires_at   timestamptz not null
);

-- What is encrypted cannot be compressed.
alter table idempotent_requests alter column answer set storage external;
create index idempotent_requests_expiry on idempotent_requests (expires_at);
create index idempotent_requests_oldest on idempotent_requests (owner, kept_at) where answer is not null;

-- How many bytes an owner's answers have, so that nobody sums them up at each answer.
create table idempotent_room (
    owner text primary key,
    bytes bigint not null
);
