-- Images and dollars a minute, of accounts, keys, teams and budgets. Processes of the release before do not know them: what
-- they admit is not bound by them.

do $$
declare
    one text;
begin
    foreach one in array array['accounts', 'keys', 'teams', 'budgets'] loop
        execute format('alter table %s add column images_a_minute bigint check (images_a_minute > 0),'
                       ' add column nano_usd_a_minute bigint check (nano_usd_a_minute > 0)', one);
    end loop;
end $$;

-- How much could be used at a moment. Logged, unlike `paces`: after a crash of the database nobody has a second minute's worth.
-- Null: a minute's.
create table pace_amounts (
    subject  text primary key,
    images   double precision,
    nano_usd double precision,
    at       timestamptz not null
);
