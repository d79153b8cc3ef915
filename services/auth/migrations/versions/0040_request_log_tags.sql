-- Tags of logged requests in order of time: a list of those with a tag reads no more of them than it shows.
drop index request_log_of_tag;
create table request_log_tags (
    team_id text        not null,
    tag     text        not null,
    at      timestamptz not null,
    -- The request's.
    id      text        not null,
    primary key (team_id, tag, at, id)
) partition by range (at);
create index request_log_tags_of_all on request_log_tags (tag, at, id);

-- What failed of a team, whatever the error.
create index request_log_failures_of_team on request_log (team_id, at desc, id desc) where error <> '';

create or replace procedure make_request_log_month(day date) language plpgsql as $$
declare
    starts date := date_trunc('month', day)::date;
    month text := to_char(starts, 'YYYY_MM');
    one text;
begin
    perform pg_advisory_xact_lock(hashtext('moa_request_log_months'));
    foreach one in array array['request_log', 'request_log_tags'] loop
        if to_regclass(one || '_' || month) is null then
            -- Attached, rather than made as a partition, it keeps no reader waiting.
            execute format('create table %I (like %I including all)', one || '_' || month, one);
            execute format('alter table %I attach partition %I for values from (%L) to (%L)', one, one || '_' || month,
                           starts::text || ' 00:00+00', (starts + interval '1 month')::date::text || ' 00:00+00');
        end if;
    end loop;
end $$;

do $$
declare
    month date;
begin
    for month in select distinct date_trunc('month', at at time zone 'UTC')::date from request_log loop
        call make_request_log_month(month);
    end loop;
end $$;
insert into request_log_tags (team_id, tag, at, id)
select r.team_id, t.tag, r.at, r.id from request_log r cross join lateral unnest(r.tags) t (tag) on conflict do nothing;
