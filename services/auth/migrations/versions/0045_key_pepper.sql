-- By which pepper is told to be the one that keys and tokens here are digested with: a digest of a fixed text, empty where it is
-- given up; and whether an administrator is to get a key by the one that follows.
create table key_pepper (
    the_one boolean primary key default true check (the_one),
    digest bytea not null,
    owes_key boolean not null default false,
    since timestamptz not null default now()
);
