-- Requests whose price is not known are counted beside what was charged, so that nobody reads that they cost nothing.
-- Of what was booked before there is no count.

alter table ledger
    -- Whether it charges a request whose price is not known. Null in rows that charge none, and of the release before.
    add column price_unknown boolean;
alter table usage_days add column unpriced_requests bigint not null default 0;

create function count_unpriced() returns trigger language plpgsql as $$
declare
    counted int := coalesce(new.price_unknown, false)::int;
begin
    if new.kind = 'late' then
        -- What was charged as an orphan and settled after all is one request, whose price the later row tells.
        counted := counted - (
            select count(*) from ledger where reference = new.reference and kind = 'orphan' and price_unknown);
    end if;
    if counted <> 0 then
        insert into usage_days as u (
            account_id, day, key_id, provider, model, operation, writer,
            requests, prompt_tokens, completion_tokens, charged_tokens, charged_images, unpriced_requests
        ) values (
            new.account_id, new.day, new.key_id, coalesce(new.provider, ''), coalesce(new.model, ''),
            coalesce(new.operation, 0), pg_backend_pid(), 0, 0, 0, 0, 0, counted
        ) on conflict (account_id, day, key_id, provider, model, operation, writer) do update set
            unpriced_requests = u.unpriced_requests + excluded.unpriced_requests;
    end if;
    return null;
end $$;
create trigger ledger_usage_unpriced after insert on ledger for each row
    when (new.kind in ('settle', 'orphan', 'late') and (new.price_unknown or new.kind = 'late'))
    execute function count_unpriced();
