-- What settlements of one transaction come to is added to the sums of usage by day once for each day, key and model,
-- not once for each row: a row that many rows add to was written as often, and left as many dead versions.

alter procedure state_dimensions() rename to state_amounts;

create procedure state_usage() language plpgsql as $state$
begin
    execute format($$
        create or replace function count_usage_of_all() returns trigger language plpgsql as $do$
        begin
            insert into usage_days as u (
                account_id, day, key_id, provider, model, operation, writer,
                requests, prompt_tokens, completion_tokens, %s
            )
            select
                f.account_id, f.day, f.key_id, coalesce(f.provider, ''), coalesce(f.model, ''), coalesce(f.operation, 0),
                pg_backend_pid(),
                -- What is one request: as `count_usage` says.
                count(*) filter (where f.prompt_tokens is not null
                    and not (f.kind = 'late' and exists (
                        select 1 from ledger where reference = f.reference and kind = 'orphan'
                        and (tokens <> 0 or images <> 0 or provider <> '')))
                    and (f.tokens <> 0 or f.images <> 0 or coalesce(f.provider, '') <> '')),
                coalesce(sum(f.prompt_tokens), 0), coalesce(sum(f.completion_tokens), 0), %s
            from fresh f
            where f.kind in ('settle', 'orphan', 'late') and (f.provider <> '' or %s)
            group by 1, 2, 3, 4, 5, 6
            on conflict (account_id, day, key_id, provider, model, operation, writer) do update set
                requests = u.requests + excluded.requests,
                prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
                completion_tokens = u.completion_tokens + excluded.completion_tokens,
                %s;
            return null;
        end $do$
    $$, each_dimension('charged_{}'), each_dimension('sum(f.{})'), each_dimension('f.{} <> 0', ' or '),
        each_dimension('charged_{} = u.charged_{} + excluded.charged_{}'));
    -- In the place of the one that counts row by row, under its name: there is never both.
    drop trigger if exists ledger_usage on ledger;
    create trigger ledger_usage after insert on ledger referencing new table as fresh
        for each statement execute function count_usage_of_all();
end $state$;

create procedure state_dimensions() language plpgsql as $state$
begin
    call state_amounts();
    call state_usage();
end $state$;

call state_usage();
