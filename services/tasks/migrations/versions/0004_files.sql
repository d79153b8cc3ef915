-- Files that callers uploaded, to name them as inputs: they stand in the store, and end by themselves.

create table tasks.files (
    name         text primary key,
    account_id   text not null,
    filename     text not null,
    content_type text not null,
    size_bytes   bigint not null,
    sha256       text not null,
    metadata     jsonb not null,
    -- Set when the store has it.
    stored       boolean not null default false,
    created_at   timestamptz not null default now(),
    expires_at   timestamptz not null
);
create index files_of_account on tasks.files (account_id, created_at desc);
create index files_by_end on tasks.files (expires_at);
