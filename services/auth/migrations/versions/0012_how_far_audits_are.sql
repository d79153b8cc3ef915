-- Up to which row of the ledger everything was checked, with the sums up to there, so that a check begins behind it.

create table audit_position (
    single boolean primary key default true check (single),
    upto bigint not null,
    sums bigint[] not null,
    at   timestamptz not null default now()
);

create index ledger_orphans on ledger (id) where kind = 'orphan';
create index ledger_uncovered on ledger (id) where uncovered_tokens > 0 or uncovered_images > 0;
