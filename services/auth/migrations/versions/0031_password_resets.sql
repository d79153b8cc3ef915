-- Links by which somebody who forgot a password sets another, one an account at a time; the tokens are kept as digests.
create table password_resets (
    account_id text primary key references accounts (id) on delete cascade,
    digest     bytea not null unique,
    expires_at timestamptz not null
);
