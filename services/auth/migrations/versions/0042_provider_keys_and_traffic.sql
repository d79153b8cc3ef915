-- Providers' keys that are set while the gateway runs, encrypted by the operator's keys.
create table provider_keys (
    variable text primary key,
    key_name text not null,
    sealed bytea not null,
    last_four text not null,
    set_at timestamptz not null default now(),
    set_by text not null
);

-- What each router saw of each target within ten minutes: the same numbers however often they are told.
create table traffic (
    at timestamptz not null,
    holder text not null,
    route text not null,
    provider text not null,
    model text not null,
    requests bigint not null,
    errors bigint not null,
    fallbacks bigint not null,
    first_events bigint[] not null,
    primary key (at, holder, route, provider, model)
);

-- What a router knows now of targets that rest and of providers' limits.
create table router_states (
    holder text primary key,
    at timestamptz not null default now(),
    state bytea not null
);
