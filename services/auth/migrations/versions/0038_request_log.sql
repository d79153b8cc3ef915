-- The log of requests, for teams that want one (decision 0037). What the release before makes of a team logs nothing.
alter table teams
    add column log_requests boolean not null default false,
    add column log_content  boolean not null default false,
    add column log_days     integer not null default 30 check (log_days between 1 and 366);

create table request_log (
    id          text        not null,
    at          timestamptz not null,
    team_id     text        not null,
    account_id  text        not null,
    key_id      text        not null,
    request_id  text        not null,
    -- Who answered; where nobody did, who was asked for.
    model       text        not null,
    status      smallint    not null,
    error       text        not null,
    tags        text[],
    -- moa.requestlog.v1.LoggedRequest, without content.
    facts       bytea       not null,
    -- moa.requestlog.v1.Content, compressed and encrypted by the operator's key of this name.
    content_key text,
    content     bytea,
    primary key (id, at),
    check ((content is null) = (content_key is null))
) partition by range (at);
alter table request_log alter column content set storage external;
create index request_log_by_time on request_log (at desc, id desc);
create index request_log_of_team on request_log (team_id, at desc, id desc);
create index request_log_of_account on request_log (account_id, at desc, id desc);
create index request_log_of_key on request_log (key_id, at desc, id desc);
create index request_log_of_model on request_log (model, at desc, id desc);
create index request_log_of_status on request_log (status, at desc, id desc) where status <> 200;
create index request_log_of_error on request_log (error, at desc, id desc) where error <> '';
create index request_log_of_request on request_log (request_id);
create index request_log_of_tag on request_log using gin (tags) where tags is not null;

-- Make the partition of a day's month (UTC), where there is none.
create procedure make_request_log_month(day date) language plpgsql as $$
declare
    starts date := date_trunc('month', day)::date;
    called text := 'request_log_' || to_char(starts, 'YYYY_MM');
begin
    perform pg_advisory_xact_lock(hashtext('moa_request_log_months'));
    if to_regclass(called) is null then
        -- Attached, rather than made as a partition, it keeps no reader waiting.
        execute format('create table %I (like request_log including all)', called);
        execute format('alter table request_log attach partition %I for values from (%L) to (%L)', called,
                       starts::text || ' 00:00+00', (starts + interval '1 month')::date::text || ' 00:00+00');
    end if;
end $$;

-- What is not to be kept any more, of a team, of an account, or of an account in a team: nobody reads it, what arrives of it
-- late is not written, and a sweep removes it.
create table request_log_erasures (
    id         bigint generated always as identity primary key,
    team_id    text,
    account_id text,
    upto       timestamptz not null default now(),
    swept_at   timestamptz,
    check (team_id is not null or account_id is not null)
);

-- What processes could not keep until it was written: each process counts from its start.
create table request_log_dropped (
    team_id  text   not null,
    day      date   not null,
    holder   text   not null,
    requests bigint not null,
    primary key (team_id, day, holder)
);

-- What waits for an export to a bucket: JSON lines, compressed, written with the requests. `object` is the name under which it
-- was tried first, and is tried again.
create table request_log_exports (
    id         bigint generated always as identity primary key,
    hour       timestamptz not null,
    lines      bytea       not null,
    object     text,
    created_at timestamptz not null default now()
);
create index request_log_exports_begun on request_log_exports (object) where object is not null;
