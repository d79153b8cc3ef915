-- What a further reservation of a request paid is a row of its own, without counts of tokens, and no request of its own.

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
        case when new.prompt_tokens is null or new.kind = 'late' and exists (
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
