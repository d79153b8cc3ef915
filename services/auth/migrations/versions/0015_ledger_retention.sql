-- Old rows of the ledger may be removed: in whole blocks, long after anything of them can be booked, with their sums kept.

-- What the removed rows moved, in all: of an account by day, and of each key whose day they counted on (`subject`; the
-- account itself is one). Together with the rows that are there, this is the ledger.
create table ledger_carried (
    account_id      text not null,
    day             date not null,
    subject         text not null,
    rows            bigint not null,
    newest          timestamptz not null, -- the `at` of the newest one
    borrowed_tokens bigint not null,
    settled_tokens  bigint not null,
    returned_tokens bigint not null,
    late_tokens     bigint not null,
    borrowed_images bigint not null,
    settled_images  bigint not null,
    returned_images bigint not null,
    late_images     bigint not null,
    primary key (account_id, day, subject)
);

create index blocks_closed on blocks (closed_at, id) where closed_at is not null;

drop trigger ledger_append_only on ledger;
create trigger ledger_append_only before update or truncate on ledger
    for each statement execute function ledger_is_append_only();

-- Whoever deletes rows: the law of it is here, and no sum is lost.
create function carry_ledger() returns trigger language plpgsql as $$
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
               coalesce(sum(images) filter (where kind = 'late'), 0) as late_images
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
        late_images = c.late_images + excluded.late_images;
    return null;
end $$;
create trigger ledger_carried after delete on ledger referencing old table as gone
    for each statement execute function carry_ledger();
