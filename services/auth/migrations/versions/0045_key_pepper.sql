-- By which pepper is told to be the one that keys and tokens here are digested with: a digest of a fixed text.
create table key_pepper (
    the_one boolean primary key default true check (the_one),
    digest bytea not null,
    since timestamptz not null default now()
);
