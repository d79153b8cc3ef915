-- What was spent, summed up by whatever reports group by, in the transaction that books it (docs/decisions/0033-spend.md).

-- A sum by day for each value of each grouping: of everybody (`scope` empty), and by themselves of each account and each
-- team. Of groupings with many values there is a sum by month, too. `shard`: writers at the same time have one each, so that none waits for another.
create table spend (
    scope             text not null,
    grouping          text not null check (grouping in ('team', 'account', 'key', 'model', 'dialect', 'tag')),
    period            text not null check (period in ('day', 'month')),
    starts            date not null,
    value             text not null,
    shard             int not null,
    requests          bigint not null,
    unpriced_requests bigint not null,
    prompt_tokens     bigint not null,
    completion_tokens bigint not null,
    primary key (scope, grouping, period, starts, value, shard)
) with (fillfactor = 80);

-- The lowest shard that no other running transaction has, kept to the end of this one.
create function spend_shard() returns int language plpgsql as $$
begin
    for shard in 0..255 loop
        if pg_try_advisory_xact_lock(1936747630, shard) then
            return shard;
        end if;
    end loop;
    return 1000 + pg_backend_pid();
end $$;

-- What reports show of a tag: itself, or 'others' where its account has a thousand others in the month already.
create function tag_shown(account_id text, month date, tag text) returns text language sql stable as $$
    select case when exists (
        select from spend where scope = account_id and grouping = 'tag' and period = 'month' and starts = month
        and value = tag
    ) or (
        select count(*) from (
            select distinct value from spend
            where scope = account_id and grouping = 'tag' and period = 'month' and starts = month limit 1000
        ) known
    ) < 1000 then tag else '(others)' end
$$;

create procedure state_spend() language plpgsql as $state$
declare
    line text;
begin
    for line in
        select format('alter table spend add column if not exists charged_%s bigint not null default 0', name)
        from dimensions order by position
    loop
        execute line;
    end loop;
    execute format($$
        create or replace function add_to_spend() returns trigger language plpgsql as $do$
        declare
            own int;
        begin
            if not exists (
                select from booked n where n.kind in ('settle', 'orphan', 'late') and (n.provider <> '' or %s)
            ) then
                return null;
            end if;
            own := spend_shard();
            insert into spend as s (
                scope, grouping, period, starts, value, shard,
                requests, unpriced_requests, prompt_tokens, completion_tokens, %s
            )
            with charged as (
                select n.account_id, n.key_id, n.day, coalesce(n.provider, '') || '/' || coalesce(n.model, '') as model,
                       coalesce(n.dialect, '') as dialect, n.tags, coalesce(n.team_id, '') as team,
                       -- As `count_usage` counts them.
                       case when n.prompt_tokens is null or n.kind = 'late' and exists (
                           select from ledger o where o.reference = n.reference and o.kind = 'orphan'
                           and (o.tokens <> 0 or o.images <> 0 or o.provider <> ''))
                           or (n.tokens = 0 and n.images = 0 and coalesce(n.provider, '') = '') then 0 else 1
                       end as requested,
                       -- As `count_unpriced` counts them.
                       coalesce(n.price_unknown, false)::int - case when n.kind = 'late' then (
                           select count(*) from ledger o
                           where o.reference = n.reference and o.kind = 'orphan' and o.price_unknown
                       ) else 0 end as unpriced,
                       coalesce(n.prompt_tokens, 0) as prompt_tokens,
                       coalesce(n.completion_tokens, 0) as completion_tokens, %s
                from booked n
                where n.kind in ('settle', 'orphan', 'late') and (n.provider <> '' or %s)
            )
            select g.scope, g.grouping, p.period, p.starts, g.value, own,
                   sum(c.requested), sum(c.unpriced), sum(c.prompt_tokens), sum(c.completion_tokens), %s
            from charged c
            cross join lateral (
                values ('', 'team', c.team), ('', 'account', c.account_id), ('', 'key', c.key_id),
                       ('', 'model', c.model), ('', 'dialect', c.dialect),
                       (c.account_id, 'key', c.key_id), (c.account_id, 'model', c.model),
                       (c.account_id, 'dialect', c.dialect)
                union all
                select c.team, of_team.grouping, of_team.value
                from (values ('account', c.account_id), ('key', c.key_id), ('model', c.model), ('dialect', c.dialect))
                     of_team (grouping, value)
                where c.team <> ''
                union all
                -- Users are reported to their account alone: a tag of theirs is of a person.
                select whose.scope, 'tag', tag_shown(c.account_id, date_trunc('month', c.day)::date, tag)
                from unnest(c.tags) tag,
                     unnest(array_remove(array[c.account_id, '', nullif(c.team, '')], null)) whose (scope)
                where whose.scope = c.account_id or not starts_with(tag, 'user:')
            ) g (scope, grouping, value)
            cross join lateral (values ('day', c.day), ('month', date_trunc('month', c.day)::date)) p (period, starts)
            where p.period = 'day' or g.grouping in ('account', 'key', 'tag')
            group by 1, 2, 3, 4, 5
            on conflict (scope, grouping, period, starts, value, shard) do update set
                requests = s.requests + excluded.requests,
                unpriced_requests = s.unpriced_requests + excluded.unpriced_requests,
                prompt_tokens = s.prompt_tokens + excluded.prompt_tokens,
                completion_tokens = s.completion_tokens + excluded.completion_tokens, %s;
            return null;
        end $do$
    $$, each_dimension('n.{} <> 0', ' or '), each_dimension('charged_{}'), each_dimension('n.{}'),
        each_dimension('n.{} <> 0', ' or '), each_dimension('sum(c.{})'), each_dimension('charged_{} = s.charged_{} + excluded.charged_{}'));
end $state$;

alter procedure state_dimensions() rename to state_dimensions_of_subjects;
create procedure state_dimensions() language plpgsql as $$
begin
    call state_dimensions_of_subjects();
    call state_spend();
end $$;
call state_spend();

-- The lock that this takes keeps new rows back until those that are there are counted.
create trigger ledger_spend after insert on ledger referencing new table as booked
    for each statement execute function add_to_spend();

-- Of what was booked before nobody knows the dialect, the tags or the team.
do $$
begin
    execute format($do$
        insert into spend (scope, grouping, period, starts, value, shard,
                           requests, unpriced_requests, prompt_tokens, completion_tokens, %s)
        select g.scope, g.grouping, p.period, p.starts, g.value, 0,
               sum(u.requests), sum(u.unpriced_requests), sum(u.prompt_tokens), sum(u.completion_tokens), %s
        from usage_days u
        cross join lateral (
            values ('', 'team', ''), ('', 'account', u.account_id), ('', 'key', u.key_id),
                   ('', 'model', u.provider || '/' || u.model), ('', 'dialect', ''),
                   (u.account_id, 'key', u.key_id), (u.account_id, 'model', u.provider || '/' || u.model),
                   (u.account_id, 'dialect', '')
        ) g (scope, grouping, value)
        cross join lateral (values ('day', u.day), ('month', date_trunc('month', u.day)::date)) p (period, starts)
        where p.period = 'day' or g.grouping in ('account', 'key', 'tag')
        group by 1, 2, 3, 4, 5
    $do$, each_dimension('charged_{}'), each_dimension('sum(u.charged_{})'));
end $$;

-- Puts what an account's users spent together, so that none of them is named.
create procedure forget_users(account text) language plpgsql as $forget$
declare
    own int := spend_shard();
begin
    execute format($$
        insert into spend as s (scope, grouping, period, starts, value, shard,
                                requests, unpriced_requests, prompt_tokens, completion_tokens, %s)
        select scope, grouping, period, starts, '(deleted)', $2,
               sum(requests), sum(unpriced_requests), sum(prompt_tokens), sum(completion_tokens), %s
        from spend where scope = $1 and grouping = 'tag' and starts_with(value, 'user:') group by 1, 2, 3, 4
        on conflict (scope, grouping, period, starts, value, shard) do update set
            requests = s.requests + excluded.requests,
            unpriced_requests = s.unpriced_requests + excluded.unpriced_requests,
            prompt_tokens = s.prompt_tokens + excluded.prompt_tokens,
            completion_tokens = s.completion_tokens + excluded.completion_tokens, %s
    $$, each_dimension('charged_{}'), each_dimension('sum(charged_{})'), each_dimension('charged_{} = s.charged_{} + excluded.charged_{}'))
    using account, own;
    delete from spend where scope = account and grouping = 'tag' and starts_with(value, 'user:');
end $forget$;
