-- Paces and tries that all replicas count together, and keys with a pace of their own.

alter table keys add column requests_a_minute bigint check (requests_a_minute >= 0),
                 add column concurrent_requests bigint check (concurrent_requests >= 0);

-- Not logged: a crash of the database may forget what follows, which costs a minute's exactness and no money.

-- How many requests of a paced account or key could begin at a moment; since then more, by its limit.
create unlogged table paces (
    subject text primary key,
    starts  double precision not null,
    at      timestamptz not null
);

-- How many requests a holder may run at once of a paced account or key.
create unlogged table pace_slots (
    subject    text not null,
    holder     text not null,
    slots      int not null check (slots >= 0),
    expires_at timestamptz not null,
    primary key (subject, holder)
);

-- When somebody who guesses has all tries again. Names are digests: people type passwords where emails belong.
create unlogged table tries (
    name    bytea primary key,
    full_at timestamptz not null
);
create index tries_by_time on tries (full_at);
