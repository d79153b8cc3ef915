-- The dimensions of amounts are rows, of which columns, triggers and views follow: another one is a call of
-- `add_dimension` (docs/decisions/0019-amounts.md).

create table dimensions (
    position   smallint primary key,
    name       text not null unique,
    -- Whether accounts and keys have limits of it that people set.
    has_limits boolean not null
);
insert into dimensions values
    (1, 'tokens', true), (2, 'images', true), (3, 'nano_usd', true), (4, 'micro_credits', false);

-- A piece of SQL for each dimension, whose name stands for `{}` in it.
create function each_dimension(form text, between_them text default ', ') returns text language sql stable as $$
    select string_agg(replace(form, '{}', name), between_them order by position) from dimensions
$$;

create procedure state_dimensions() language plpgsql as $state$
declare
    limits text;
    limits_of_accounts text;
begin
    select string_agg(format('%s_%s', name, period), ', ' order by position, period),
           string_agg(format('case when not unlimited then %1$s_%2$s end as %1$s_%2$s', name, period), ', '
                      order by position, period)
    into limits, limits_of_accounts
    from dimensions, unnest(array['a_day', 'a_month', 'in_total']) period where has_limits;
    -- The limits of every subject, for those who ask by its id alone; null: none. What is `unlimited` is not so in
    -- credits.
    drop view if exists subject_limits;
    execute format($$
        create view subject_limits as
            select id as subject, 'account' as kind, %s, micro_credits as micro_credits_in_total from accounts
            union all
            select id, 'key', %s, null from keys
    $$, limits_of_accounts, limits);

    execute format($$
        create or replace function add_to_periods() returns trigger language plpgsql as $do$
        begin
            if tg_op = 'INSERT' then
                insert into quota_counters (subject, period, starts)
                select new.subject, p.period, p.starts from periods_of(new.starts) p where p.period <> 'day'
                order by p.period on conflict do nothing;
            end if;
            update quota_counters c set %s
            from periods_of(new.starts) p
            where c.subject = new.subject and p.period <> 'day' and c.period = p.period and c.starts = p.starts;
            return null;
        end $do$
    $$, each_dimension('{} = c.{} + new.{} - case when tg_op = ''INSERT'' then 0 else old.{} end'));

    execute format($$
        create or replace function count_usage() returns trigger language plpgsql as $do$
        begin
            insert into usage_days as u (
                account_id, day, key_id, provider, model, operation, writer,
                requests, prompt_tokens, completion_tokens, %s
            ) values (
                new.account_id, new.day, new.key_id, coalesce(new.provider, ''), coalesce(new.model, ''),
                coalesce(new.operation, 0), pg_backend_pid(),
                -- One that was charged as an orphan and settled after all is one request. Credits that are booked by
                -- themselves are of a request whose images were booked apart from them.
                case when new.prompt_tokens is null or new.kind = 'late' and exists (
                    select 1 from ledger where reference = new.reference and kind = 'orphan'
                    and (tokens <> 0 or images <> 0 or provider <> ''))
                    or (new.tokens = 0 and new.images = 0 and coalesce(new.provider, '') = '') then 0 else 1 end,
                coalesce(new.prompt_tokens, 0), coalesce(new.completion_tokens, 0), %s
            ) on conflict (account_id, day, key_id, provider, model, operation, writer) do update set
                requests = u.requests + excluded.requests,
                prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
                completion_tokens = u.completion_tokens + excluded.completion_tokens,
                %s;
            return null;
        end $do$
    $$, each_dimension('charged_{}'), each_dimension('new.{}'),
        each_dimension('charged_{} = u.charged_{} + excluded.charged_{}'));
    drop trigger if exists ledger_usage on ledger;
    execute format($$
        create trigger ledger_usage after insert on ledger for each row
            when (new.kind in ('settle', 'orphan', 'late') and (new.provider <> '' or %s))
            execute function count_usage()
    $$, each_dimension('new.{} <> 0', ' or '));

    -- Whoever deletes rows: the law of it is here, and no sum is lost.
    execute format($$
        create or replace function carry_ledger() returns trigger language plpgsql as $do$
        begin
            if exists (
                select 1 from gone g left join blocks b on b.id = g.block_id
                where g.at > now() - interval '35 days'
                or b.closed_at is null or b.closed_at > now() - interval '35 days'
            ) then
                raise exception 'the ledger is append-only for 35 days after a block was closed';
            end if;
            if exists (select 1 from ledger l where l.block_id in (select block_id from gone)) then
                raise exception 'the rows of a block are removed together';
            end if;
            insert into ledger_carried as c (account_id, day, subject, rows, newest, %s)
            with sums as (
                select account_id, day, key_id, block_id, count(*) as rows, max(at) as newest, %s
                from gone group by account_id, day, key_id, block_id
            )
            select s.account_id, s.day, w.subject, sum(s.rows), max(s.newest), %s
            from sums s join blocks b on b.id = s.block_id,
                 -- Each subject once, the account among them.
                 lateral (
                     select distinct unnest(array[s.account_id] || coalesce(b.counts_as, array[s.key_id])) as subject
                 ) w
            group by 1, 2, 3 order by 1, 2, 3
            on conflict (account_id, day, subject) do update set
                rows = c.rows + excluded.rows, newest = greatest(c.newest, excluded.newest), %s;
            return null;
        end $do$
    $$, each_dimension('borrowed_{}, settled_{}, returned_{}, late_{}'),
        each_dimension($$
            coalesce(sum({}) filter (where kind in ('borrow', 'grow')), 0) as borrowed_{},
            coalesce(sum({}) filter (where kind in ('settle', 'orphan')), 0) as settled_{},
            coalesce(sum({}) filter (where kind in ('return', 'expire')), 0) as returned_{},
            coalesce(sum({}) filter (where kind = 'late'), 0) as late_{}
        $$),
        each_dimension('sum(s.borrowed_{}), sum(s.settled_{}), sum(s.returned_{}), sum(s.late_{})'),
        each_dimension($$
            borrowed_{} = c.borrowed_{} + excluded.borrowed_{}, settled_{} = c.settled_{} + excluded.settled_{},
            returned_{} = c.returned_{} + excluded.returned_{}, late_{} = c.late_{} + excluded.late_{}
        $$));

    drop index if exists ledger_uncovered;
    execute format('create index ledger_uncovered on ledger (id) where %s', each_dimension('uncovered_{} > 0', ' or '));
end $state$;

-- Count a dimension from now on; of what was booked before there is none of it. `has_limits`: whether people limit it.
create procedure add_dimension(added text, has_limits boolean) language plpgsql as $add$
declare
    before int;
    line text;
begin
    select max(position) into before from dimensions;
    insert into dimensions values (before + 1, added, has_limits);
    foreach line in array array[
        'alter table quota_counters add column {} bigint not null default 0 check ({} >= 0)',
        'alter table blocks
            add column {} bigint not null default 0 check ({} >= 0),
            add column settled_{} bigint not null default 0 check (settled_{} >= 0),
            add column returned_{} bigint not null default 0 check (returned_{} >= 0),
            add constraint blocks_{}_outstanding check (settled_{} + returned_{} <= {})',
        'alter table ledger
            add column {} bigint not null default 0,
            add column uncovered_{} bigint not null default 0,
            add column reserved_{} bigint',
        'alter table usage_days add column charged_{} bigint not null default 0',
        'alter table ledger_carried
            add column borrowed_{} bigint not null default 0,
            add column settled_{} bigint not null default 0,
            add column returned_{} bigint not null default 0,
            add column late_{} bigint not null default 0'
    ] loop
        execute replace(line, '{}', added);
    end loop;
    if has_limits then
        foreach line in array array['accounts', 'keys'] loop
            execute replace(format('alter table %s
                add column {}_a_day bigint check ({}_a_day >= 0),
                add column {}_a_month bigint check ({}_a_month >= 0),
                add column {}_in_total bigint check ({}_in_total >= 0)', line), '{}', added);
        end loop;
    end if;
    -- How far audits are: rows, then what was borrowed, settled, returned and charged late, each by dimension.
    update audit_position set sums = sums[1:1]
        || sums[2 : before + 1] || 0::bigint || sums[before + 2 : 2 * before + 1] || 0::bigint
        || sums[2 * before + 2 : 3 * before + 1] || 0::bigint || sums[3 * before + 2 : 4 * before + 1] || 0::bigint;
    call state_dimensions();
end $add$;

call state_dimensions();
