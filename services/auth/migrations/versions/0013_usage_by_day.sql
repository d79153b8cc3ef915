-- What was used by day, key and model, summed up in the transaction that books it, so that nobody reads the ledger for it.
--
-- `writer` is the connection that wrote the row: each adds to rows of its own, so that no two wait for each other.

create table usage_days (
    account_id        text not null,
    day               date not null,
    key_id            text not null,
    provider          text not null,
    model             text not null,
    operation         smallint not null,
    writer            int not null,
    requests          bigint not null,
    prompt_tokens     bigint not null,
    completion_tokens bigint not null,
    charged_tokens    bigint not null,
    charged_images    bigint not null,
    primary key (account_id, day, key_id, provider, model, operation, writer)
);

create function count_usage() returns trigger language plpgsql as $$
begin
    insert into usage_days as u values (
        new.account_id, new.day, new.key_id, coalesce(new.provider, ''), coalesce(new.model, ''),
        coalesce(new.operation, 0), pg_backend_pid(),
        -- One that was charged as an orphan and settled after all is one request.
        case when new.kind = 'late' and exists (
            select 1 from ledger where reference = new.reference and kind = 'orphan'
            and (tokens <> 0 or images <> 0 or provider <> '')) then 0 else 1 end,
        coalesce(new.prompt_tokens, 0), coalesce(new.completion_tokens, 0), new.tokens, new.images
    ) on conflict (account_id, day, key_id, provider, model, operation, writer) do update set
        requests = u.requests + excluded.requests,
        prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = u.completion_tokens + excluded.completion_tokens,
        charged_tokens = u.charged_tokens + excluded.charged_tokens,
        charged_images = u.charged_images + excluded.charged_images;
    return null;
end $$;

-- Nothing came of what was released: no provider, and nothing charged. The lock that this takes keeps new rows back until
-- those that are there are counted.
create trigger ledger_usage after insert on ledger for each row
    when (new.kind in ('settle', 'orphan', 'late') and (new.tokens <> 0 or new.images <> 0 or new.provider <> ''))
    execute function count_usage();

insert into usage_days
select account_id, day, key_id, coalesce(provider, ''), coalesce(model, ''), coalesce(operation, 0), 0,
       count(*) - count(*) filter (where kind = 'late' and exists (
           select 1 from ledger o where o.reference = l.reference and o.kind = 'orphan'
           and (o.tokens <> 0 or o.images <> 0 or o.provider <> ''))),
       coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), sum(tokens), sum(images)
from ledger l
where kind in ('settle', 'orphan', 'late') and (tokens <> 0 or images <> 0 or provider <> '')
group by 1, 2, 3, 4, 5, 6;
