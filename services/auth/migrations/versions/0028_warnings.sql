-- Warnings that so many percent of a limit are used, and where they go (docs/decisions/0032-teams-and-budgets.md).

alter table teams
    add column warn_url    text not null default '',
    add column warn_emails text[] not null default '{}';
alter table budgets
    add column warn_url    text not null default '',
    add column warn_emails text[] not null default '{}';
create index teams_that_warn on teams (id) where deleted_at is null and (warn_url <> '' or warn_emails <> '{}');
create index budgets_that_warn on budgets (id) where deleted_at is null and (warn_url <> '' or warn_emails <> '{}');

-- Each is written once a period: whoever finds it again finds it here.
create table warnings (
    id         text primary key,
    subject    text not null,
    limit_name text not null,
    -- The first day of the period.
    starts     date not null,
    percent    smallint not null,
    label      text not null,
    used       bigint not null,
    most       bigint not null,
    resets_at  timestamptz,
    at         timestamptz not null default now(),
    unique (subject, limit_name, starts, percent)
);

create table warning_deliveries (
    id           text primary key,
    warning_id   text not null references warnings (id) on delete cascade,
    channel      text not null check (channel in ('webhook', 'email')),
    target       text not null,
    attempts     int not null default 0,
    next_at      timestamptz not null default now(),
    delivered_at timestamptz,
    given_up_at  timestamptz,
    last_error   text not null default '',
    unique (warning_id, channel, target)
);
create index warning_deliveries_due on warning_deliveries (next_at)
    where delivered_at is null and given_up_at is null;
