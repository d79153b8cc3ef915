-- Limits on tokens, images and dollars over days, months and in all (docs/decisions/0019-amounts.md).
--
-- Processes of the release before go on beside this schema: they write `quota_days`, a view now, and know nothing of
-- dollars, which are 0 in what they write.

-- The periods that a day is in: since when, and the first day behind it; null: it never ends.
create function periods_of(day date) returns table (period text, starts date, ends date)
language sql immutable parallel safe as $$
    values ('day', day, day + 1),
           ('month', date_trunc('month', day)::date, (date_trunc('month', day) + interval '1 month')::date),
           ('total', date '1970-01-01', null)
$$;

-- How much of a period is out of reach for others: settled, or held by a block. `subject` is whatever has limits: an
-- account, a key. Only days are written; what they change is added to the other periods here.
create table quota_counters (
    subject  text not null,
    period   text not null,
    starts   date not null,
    tokens   bigint not null default 0 check (tokens >= 0),
    images   bigint not null default 0 check (images >= 0),
    nano_usd bigint not null default 0 check (nano_usd >= 0),
    primary key (subject, period, starts)
);
insert into quota_counters (subject, period, starts, tokens, images)
select q.subject, p.period, p.starts, sum(q.tokens), sum(q.images)
from quota_days q, periods_of(q.day) p group by 1, 2, 3;

create function add_to_periods() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into quota_counters (subject, period, starts)
        select new.subject, p.period, p.starts from periods_of(new.starts) p where p.period <> 'day'
        order by p.period on conflict do nothing;
    end if;
    update quota_counters c set
        tokens = c.tokens + new.tokens - case when tg_op = 'INSERT' then 0 else old.tokens end,
        images = c.images + new.images - case when tg_op = 'INSERT' then 0 else old.images end,
        nano_usd = c.nano_usd + new.nano_usd - case when tg_op = 'INSERT' then 0 else old.nano_usd end
    from periods_of(new.starts) p
    where c.subject = new.subject and p.period <> 'day' and c.period = p.period and c.starts = p.starts;
    return null;
end $$;
create trigger quota_counters_periods after insert or update on quota_counters for each row
    when (new.period = 'day') execute function add_to_periods();

drop table quota_days;
alter table quota_counters alter column period set default 'day';
create view quota_days as
    select subject, starts as day, tokens, images from quota_counters where period = 'day';

alter table blocks
    add column nano_usd          bigint not null default 0 check (nano_usd >= 0),
    add column settled_nano_usd  bigint not null default 0 check (settled_nano_usd >= 0),
    add column returned_nano_usd bigint not null default 0 check (returned_nano_usd >= 0),
    add constraint blocks_nano_usd_outstanding check (settled_nano_usd + returned_nano_usd <= nano_usd);
create index blocks_open_of_account on blocks (account_id) where closed_at is null;

-- What was reserved is null where no reservation was settled, and in rows of earlier releases.
alter table ledger
    add column nano_usd           bigint not null default 0,
    add column uncovered_nano_usd bigint not null default 0,
    add column reserved_tokens    bigint,
    add column reserved_images    bigint,
    add column reserved_nano_usd  bigint,
    add column cache_write_tokens bigint;
drop index ledger_uncovered;
create index ledger_uncovered on ledger (id) where uncovered_tokens > 0 or uncovered_images > 0 or uncovered_nano_usd > 0;

alter table open_reservations
    add column lease_id text not null generated always as (split_part(reservation_id, '.', 1)) stored;
create index open_reservations_of_lease on open_reservations (lease_id);

-- Null: no limit. 0: nothing. Until now 0 was any number of requests.
alter table accounts
    alter column tokens_a_day drop not null,
    alter column images_a_day drop not null,
    alter column requests_a_minute drop not null,
    alter column requests_a_minute drop default,
    alter column concurrent_requests drop not null,
    alter column concurrent_requests drop default,
    add column nano_usd_a_day    bigint check (nano_usd_a_day >= 0),
    add column tokens_a_month    bigint check (tokens_a_month >= 0),
    add column images_a_month    bigint check (images_a_month >= 0),
    add column nano_usd_a_month  bigint check (nano_usd_a_month >= 0),
    add column tokens_in_total   bigint check (tokens_in_total >= 0),
    add column images_in_total   bigint check (images_in_total >= 0),
    add column nano_usd_in_total bigint check (nano_usd_in_total >= 0);
update accounts set requests_a_minute = nullif(requests_a_minute, 0), concurrent_requests = nullif(concurrent_requests, 0)
where requests_a_minute = 0 or concurrent_requests = 0;
alter table keys
    add column nano_usd_a_day    bigint check (nano_usd_a_day >= 0),
    add column tokens_a_month    bigint check (tokens_a_month >= 0),
    add column images_a_month    bigint check (images_a_month >= 0),
    add column nano_usd_a_month  bigint check (nano_usd_a_month >= 0),
    add column tokens_in_total   bigint check (tokens_in_total >= 0),
    add column images_in_total   bigint check (images_in_total >= 0),
    add column nano_usd_in_total bigint check (nano_usd_in_total >= 0);
update keys set requests_a_minute = nullif(requests_a_minute, 0), concurrent_requests = nullif(concurrent_requests, 0)
where requests_a_minute = 0 or concurrent_requests = 0;

-- Everything about a key is told but that it was used.
drop trigger keys_notice on keys;
create trigger keys_notice after update on keys for each row
    when ((to_jsonb(old) - 'last_used_at') is distinct from (to_jsonb(new) - 'last_used_at'))
    execute function account_changed();
create trigger keys_gone_notice after delete on keys for each row execute function account_changed();

alter table usage_days add column charged_nano_usd bigint not null default 0;
create or replace function count_usage() returns trigger language plpgsql as $$
begin
    insert into usage_days as u (
        account_id, day, key_id, provider, model, operation, writer,
        requests, prompt_tokens, completion_tokens, charged_tokens, charged_images, charged_nano_usd
    ) values (
        new.account_id, new.day, new.key_id, coalesce(new.provider, ''), coalesce(new.model, ''),
        coalesce(new.operation, 0), pg_backend_pid(),
        -- One that was charged as an orphan and settled after all is one request.
        case when new.kind = 'late' and exists (
            select 1 from ledger where reference = new.reference and kind = 'orphan'
            and (tokens <> 0 or images <> 0 or provider <> '')) then 0 else 1 end,
        coalesce(new.prompt_tokens, 0), coalesce(new.completion_tokens, 0), new.tokens, new.images, new.nano_usd
    ) on conflict (account_id, day, key_id, provider, model, operation, writer) do update set
        requests = u.requests + excluded.requests,
        prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = u.completion_tokens + excluded.completion_tokens,
        charged_tokens = u.charged_tokens + excluded.charged_tokens,
        charged_images = u.charged_images + excluded.charged_images,
        charged_nano_usd = u.charged_nano_usd + excluded.charged_nano_usd;
    return null;
end $$;

alter table ledger_carried
    add column borrowed_nano_usd bigint not null default 0,
    add column settled_nano_usd  bigint not null default 0,
    add column returned_nano_usd bigint not null default 0,
    add column late_nano_usd     bigint not null default 0;
-- Whoever deletes rows: the law of it is here, and no sum is lost.
create or replace function carry_ledger() returns trigger language plpgsql as $$
begin
    if exists (
        select 1 from gone g left join blocks b on b.id = g.block_id
        where g.at > now() - interval '35 days' or b.closed_at is null or b.closed_at > now() - interval '35 days'
    ) then
        raise exception 'the ledger is append-only for 35 days after a block was closed';
    end if;
    if exists (select 1 from ledger l where l.block_id in (select block_id from gone)) then
        raise exception 'the rows of a block are removed together';
    end if;
    insert into ledger_carried as c
    with sums as (
        select account_id, day, key_id, block_id, count(*) as rows, max(at) as newest,
               coalesce(sum(tokens) filter (where kind in ('borrow', 'grow')), 0) as borrowed_tokens,
               coalesce(sum(tokens) filter (where kind in ('settle', 'orphan')), 0) as settled_tokens,
               coalesce(sum(tokens) filter (where kind in ('return', 'expire')), 0) as returned_tokens,
               coalesce(sum(tokens) filter (where kind = 'late'), 0) as late_tokens,
               coalesce(sum(images) filter (where kind in ('borrow', 'grow')), 0) as borrowed_images,
               coalesce(sum(images) filter (where kind in ('settle', 'orphan')), 0) as settled_images,
               coalesce(sum(images) filter (where kind in ('return', 'expire')), 0) as returned_images,
               coalesce(sum(images) filter (where kind = 'late'), 0) as late_images,
               coalesce(sum(nano_usd) filter (where kind in ('borrow', 'grow')), 0) as borrowed_nano_usd,
               coalesce(sum(nano_usd) filter (where kind in ('settle', 'orphan')), 0) as settled_nano_usd,
               coalesce(sum(nano_usd) filter (where kind in ('return', 'expire')), 0) as returned_nano_usd,
               coalesce(sum(nano_usd) filter (where kind = 'late'), 0) as late_nano_usd
        from gone group by account_id, day, key_id, block_id
    )
    select s.account_id, s.day, w.subject, sum(s.rows), max(s.newest),
           sum(s.borrowed_tokens), sum(s.settled_tokens), sum(s.returned_tokens), sum(s.late_tokens),
           sum(s.borrowed_images), sum(s.settled_images), sum(s.returned_images), sum(s.late_images)
    from sums s join blocks b on b.id = s.block_id,
         -- Each subject once, the account among them.
         lateral (select distinct unnest(array[s.account_id] || coalesce(b.counts_as, array[s.key_id])) as subject) w
    group by 1, 2, 3 order by 1, 2, 3
    on conflict (account_id, day, subject) do update set
        rows = c.rows + excluded.rows,
        newest = greatest(c.newest, excluded.newest),
        borrowed_tokens = c.borrowed_tokens + excluded.borrowed_tokens,
        settled_tokens = c.settled_tokens + excluded.settled_tokens,
        returned_tokens = c.returned_tokens + excluded.returned_tokens,
        late_tokens = c.late_tokens + excluded.late_tokens,
        borrowed_images = c.borrowed_images + excluded.borrowed_images,
        settled_images = c.settled_images + excluded.settled_images,
        returned_images = c.returned_images + excluded.returned_images,
        late_images = c.late_images + excluded.late_images,
        borrowed_nano_usd = c.borrowed_nano_usd + excluded.borrowed_nano_usd,
        settled_nano_usd = c.settled_nano_usd + excluded.settled_nano_usd,
        returned_nano_usd = c.returned_nano_usd + excluded.returned_nano_usd,
        late_nano_usd = c.late_nano_usd + excluded.late_nano_usd;
    return null;
end $$;

-- How far audits are is told in another order of dimensions: rows, then what was borrowed, settled, returned and late.
update audit_position set sums =
    array[sums[9], sums[1], sums[5], 0, sums[2], sums[6], 0, sums[3], sums[7], 0, sums[4], sums[8], 0];
