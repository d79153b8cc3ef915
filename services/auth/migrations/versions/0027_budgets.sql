-- Budgets: limits on a part of what somebody asks for, by model and tag (docs/decisions/0032-teams-and-budgets.md).
--
-- Processes of the release before know none: what they borrow for whom a budget may bind is refused, as of teams.

create or replace function kind_of(subject text) returns text language sql immutable strict parallel safe as $$
    select case when subject like 'key\_%' then 'key' when subject like 'team\_%' then 'team'
                when subject like 'budget\_%' then 'budget' else 'account' end
$$;

create table budgets (
    id         text primary key check (kind_of(id) = 'budget'),
    name       text not null default '',
    -- Whose requests count: an account, a key (by the id on which its limits count), a team; empty: everybody's.
    owner      text not null default '',
    -- Which of them, by the catalogue's ids as patterns, and by a tag; empty: any.
    provider   text not null default '*',
    model      text not null default '*',
    tag        text not null default '',
    requests_a_minute   int check (requests_a_minute > 0),
    concurrent_requests int check (concurrent_requests > 0),
    tokens_a_minute     bigint check (tokens_a_minute > 0),
    created_at timestamptz not null default now(),
    deleted_at timestamptz
);
create index budgets_of_owner on budgets (owner) where deleted_at is null;
create index budgets_by_time on budgets (created_at desc, id desc);

create function budget_changed() returns trigger language plpgsql as $$
begin
    -- Keys are found by their account.
    perform pg_notify('moa_accounts', case
        when new.owner = '' then 'everybody'
        when kind_of(new.owner) = 'key' then coalesce((select account_id from keys where id = new.owner), new.owner)
        else new.owner end);
    return null;
end $$;
create trigger budgets_notice after insert or update on budgets for each row execute function budget_changed();

-- Whether whoever borrowed it knows of budgets.
alter table blocks add column budgets_known boolean not null default false;

create function block_counts_on_budgets() returns trigger language plpgsql as $$
begin
    if exists (
        select 1 from budgets b where b.deleted_at is null and b.owner in (
            select '' union all select new.account_id union all select new.key_id
            union all select unnest(new.counts_as)
        )
    ) then
        raise exception 'a block of % counts on its budgets', new.account_id using errcode = 'serialization_failure';
    end if;
    return new;
end $$;
create trigger blocks_count_on_budgets before insert on blocks for each row
    when (not new.budgets_known and new.holder <> 'tasks') execute function block_counts_on_budgets();

do $$
declare
    body text;
begin
    select prosrc into body from pg_proc where proname = 'state_subjects';
    execute format('create or replace procedure state_subjects() language plpgsql as %L',
                   replace(body, 'array[''teams'']', 'array[''teams'', ''budgets'']'));
end $$;
call state_subjects();
