-- Credits of tasks are a dimension of the ledger, and whoever has limits is of a kind (docs/decisions/0019-amounts.md).
--
-- Processes of the release before go on beside this schema: credits are 0 in what they write.

-- An account, a key, or a team, which is to come: told by its id, so that one subject has one kind.
create function kind_of(subject text) returns text language sql immutable strict parallel safe as $$
    select case when subject like 'key\_%' then 'key' when subject like 'team\_%' then 'team' else 'account' end
$$;
alter table accounts drop constraint accounts_have_ids_of_their_own,
    add constraint accounts_have_ids_of_their_own check (kind_of(id) = 'account');
alter table keys drop constraint keys_have_ids_of_their_own,
    add constraint keys_have_ids_of_their_own check (kind_of(id) = 'key');

alter table quota_counters
    add column micro_credits bigint not null default 0 check (micro_credits >= 0),
    add column kind          text generated always as (kind_of(subject)) stored;

-- The limits of every subject, for those who ask by its id alone; null: none. What is `unlimited` is not so in credits.
create view subject_limits as
    select id as subject, 'account' as kind,
           case when not unlimited then tokens_a_day end as tokens_a_day,
           case when not unlimited then images_a_day end as images_a_day,
           case when not unlimited then nano_usd_a_day end as nano_usd_a_day,
           case when not unlimited then tokens_a_month end as tokens_a_month,
           case when not unlimited then images_a_month end as images_a_month,
           case when not unlimited then nano_usd_a_month end as nano_usd_a_month,
           case when not unlimited then tokens_in_total end as tokens_in_total,
           case when not unlimited then images_in_total end as images_in_total,
           case when not unlimited then nano_usd_in_total end as nano_usd_in_total,
           micro_credits as micro_credits_in_total
    from accounts
    union all
    select id, 'key', tokens_a_day, images_a_day, nano_usd_a_day, tokens_a_month, images_a_month, nano_usd_a_month,
           tokens_in_total, images_in_total, nano_usd_in_total, null
    from keys;

create or replace function add_to_periods() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into quota_counters (subject, period, starts)
        select new.subject, p.period, p.starts from periods_of(new.starts) p where p.period <> 'day'
        order by p.period on conflict do nothing;
    end if;
    update quota_counters c set
        tokens = c.tokens + new.tokens - case when tg_op = 'INSERT' then 0 else old.tokens end,
        images = c.images + new.images - case when tg_op = 'INSERT' then 0 else old.images end,
        nano_usd = c.nano_usd + new.nano_usd - case when tg_op = 'INSERT' then 0 else old.nano_usd end,
        micro_credits = c.micro_credits + new.micro_credits
                        - case when tg_op = 'INSERT' then 0 else old.micro_credits end
    from periods_of(new.starts) p
    where c.subject = new.subject and p.period <> 'day' and c.period = p.period and c.starts = p.starts;
    return null;
end $$;

alter table blocks
    add column micro_credits          bigint not null default 0 check (micro_credits >= 0),
    add column settled_micro_credits  bigint not null default 0 check (settled_micro_credits >= 0),
    add column returned_micro_credits bigint not null default 0 check (returned_micro_credits >= 0),
    add constraint blocks_micro_credits_outstanding
        check (settled_micro_credits + returned_micro_credits <= micro_credits);

alter table ledger
    add column micro_credits           bigint not null default 0,
    add column uncovered_micro_credits bigint not null default 0,
    add column reserved_micro_credits  bigint;
drop index ledger_uncovered;
create index ledger_uncovered on ledger (id)
    where uncovered_tokens > 0 or uncovered_images > 0 or uncovered_nano_usd > 0 or uncovered_micro_credits > 0;

alter table usage_days add column charged_micro_credits bigint not null default 0;
create or replace function count_usage() returns trigger language plpgsql as $$
begin
    insert into usage_days as u (
        account_id, day, key_id, provider, model, operation, writer, requests, prompt_tokens, completion_tokens,
        charged_tokens, charged_images, charged_nano_usd, charged_micro_credits
    ) values (
        new.account_id, new.day, new.key_id, coalesce(new.provider, ''), coalesce(new.model, ''),
        coalesce(new.operation, 0), pg_backend_pid(),
        -- One that was charged as an orphan and settled after all is one request. Credits that are booked by themselves
        -- are of a request whose images were booked apart from them.
        case when new.kind = 'late' and exists (
            select 1 from ledger where reference = new.reference and kind = 'orphan'
            and (tokens <> 0 or images <> 0 or provider <> ''))
            or (new.tokens = 0 and new.images = 0 and coalesce(new.provider, '') = '') then 0 else 1 end,
        coalesce(new.prompt_tokens, 0), coalesce(new.completion_tokens, 0), new.tokens, new.images, new.nano_usd,
        new.micro_credits
    ) on conflict (account_id, day, key_id, provider, model, operation, writer) do update set
        requests = u.requests + excluded.requests,
        prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = u.completion_tokens + excluded.completion_tokens,
        charged_tokens = u.charged_tokens + excluded.charged_tokens,
        charged_images = u.charged_images + excluded.charged_images,
        charged_nano_usd = u.charged_nano_usd + excluded.charged_nano_usd,
        charged_micro_credits = u.charged_micro_credits + excluded.charged_micro_credits;
    return null;
end $$;
drop trigger ledger_usage on ledger;
create trigger ledger_usage after insert on ledger for each row
    when (new.kind in ('settle', 'orphan', 'late')
          and (new.tokens <> 0 or new.images <> 0 or new.micro_credits <> 0 or new.provider <> ''))
    execute function count_usage();

alter table ledger_carried
    add column borrowed_micro_credits bigint not null default 0,
    add column settled_micro_credits  bigint not null default 0,
    add column returned_micro_credits bigint not null default 0,
    add column late_micro_credits     bigint not null default 0;
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
    insert into ledger_carried as c (
        account_id, day, subject, rows, newest,
        borrowed_tokens, settled_tokens, returned_tokens, late_tokens,
        borrowed_images, settled_images, returned_images, late_images,
        borrowed_nano_usd, settled_nano_usd, returned_nano_usd, late_nano_usd,
        borrowed_micro_credits, settled_micro_credits, returned_micro_credits, late_micro_credits
    )
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
               coalesce(sum(nano_usd) filter (where kind = 'late'), 0) as late_nano_usd,
               coalesce(sum(micro_credits) filter (where kind in ('borrow', 'grow')), 0) as borrowed_micro_credits,
               coalesce(sum(micro_credits) filter (where kind in ('settle', 'orphan')), 0) as settled_micro_credits,
               coalesce(sum(micro_credits) filter (where kind in ('return', 'expire')), 0) as returned_micro_credits,
               coalesce(sum(micro_credits) filter (where kind = 'late'), 0) as late_micro_credits
        from gone group by account_id, day, key_id, block_id
    )
    select s.account_id, s.day, w.subject, sum(s.rows), max(s.newest),
           sum(s.borrowed_tokens), sum(s.settled_tokens), sum(s.returned_tokens), sum(s.late_tokens),
           sum(s.borrowed_images), sum(s.settled_images), sum(s.returned_images), sum(s.late_images),
           sum(s.borrowed_nano_usd), sum(s.settled_nano_usd), sum(s.returned_nano_usd), sum(s.late_nano_usd),
           sum(s.borrowed_micro_credits), sum(s.settled_micro_credits), sum(s.returned_micro_credits),
           sum(s.late_micro_credits)
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
        late_nano_usd = c.late_nano_usd + excluded.late_nano_usd,
        borrowed_micro_credits = c.borrowed_micro_credits + excluded.borrowed_micro_credits,
        settled_micro_credits = c.settled_micro_credits + excluded.settled_micro_credits,
        returned_micro_credits = c.returned_micro_credits + excluded.returned_micro_credits,
        late_micro_credits = c.late_micro_credits + excluded.late_micro_credits;
    return null;
end $$;

-- The release before kept no dollars of the rows that it removed. They are what the counters have, and the rows that
-- are there have not; of blocks that are over, as much was borrowed as was settled.
with moved as (
    select account_id as subject, day,
           case when kind in ('borrow', 'grow', 'late') then nano_usd
                when kind in ('return', 'expire') then -nano_usd else 0 end as nano_usd
    from ledger where (account_id, day) in (select account_id, day from ledger_carried)
    union all
    select c.subject, l.day,
           case when l.kind in ('borrow', 'grow', 'late') then l.nano_usd
                when l.kind in ('return', 'expire') then -l.nano_usd else 0 end
    from ledger l left join blocks b on b.id = l.block_id, unnest(coalesce(b.counts_as, array[l.key_id])) c (subject)
    where c.subject <> l.account_id and (l.account_id, l.day) in (select account_id, day from ledger_carried)
), kept as (
    select subject, day, sum(nano_usd) as nano_usd from moved group by 1, 2
), lost as (
    select q.subject, q.starts as day, q.nano_usd - coalesce(k.nano_usd, 0) as nano_usd
    from quota_counters q left join kept k on k.subject = q.subject and k.day = q.starts where q.period = 'day'
)
update ledger_carried c set borrowed_nano_usd = l.nano_usd, settled_nano_usd = l.nano_usd
from lost l where l.subject = c.subject and l.day = c.day
and l.nano_usd <> c.borrowed_nano_usd - c.returned_nano_usd + c.late_nano_usd;

-- How far audits are: rows, then what was borrowed, settled, returned and late, each by dimension.
update audit_position set sums = sums[1:4] || 0::bigint || sums[5:7] || 0::bigint || sums[8:10] || 0::bigint
                                 || sums[11:13] || 0::bigint;
