-- Sums of spending by month for every grouping: a year of days by team lay in as many places of the table as there are of them.

-- Whoever books waits: what is summed up here is not to be added to meanwhile by the trigger of before.
lock table ledger in share row exclusive mode;

do $$
declare
    body text;
    but_few constant text := $but$where p.period = 'day' or g.grouping in ('account', 'key', 'tag')$but$;
begin
    select prosrc into strict body from pg_proc where proname = 'state_spend';
    if position(but_few in body) = 0 then
        raise exception 'state_spend is not as it was';
    end if;
    execute format('create or replace procedure state_spend() language plpgsql as %L',
                   replace(body, but_few, ''));
end $$;
call state_spend();

do $$
begin
    execute format($do$
        insert into spend (scope, grouping, period, starts, value, shard,
                           requests, unpriced_requests, prompt_tokens, completion_tokens, %s)
        select scope, grouping, 'month', date_trunc('month', starts::timestamp)::date, value, 0,
               sum(requests), sum(unpriced_requests), sum(prompt_tokens), sum(completion_tokens), %s
        from spend where period = 'day' and grouping in ('team', 'model', 'dialect') group by 1, 2, 4, 5
    $do$, each_dimension('charged_{}'), each_dimension('sum(charged_{})'));
end $$;
