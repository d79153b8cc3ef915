-- Teams: accounts that keep limits together, a subject of the ledger as an account and a key are
-- (docs/decisions/0032-teams-and-budgets.md).
--
-- Processes of the release before go on beside this schema. They know no team, so that what they borrow for an account
-- of one is refused (40001, which they answer 503): its other requests are admitted by processes of this release.

create table teams (
    id         text primary key check (kind_of(id) = 'team'),
    name       text not null default '',
    -- By which its own keys act: those of its services.
    account_id text not null unique references accounts (id),
    -- What its accounts may use beside what each may by itself, as scopes of keys are stored.
    rules      jsonb not null default '[]',
    requests_a_minute   int check (requests_a_minute > 0),
    concurrent_requests int check (concurrent_requests > 0),
    tokens_a_minute     bigint check (tokens_a_minute > 0),
    created_at timestamptz not null default now(),
    -- What was booked of it stays, and is bound by its limits.
    deleted_at timestamptz
);
create index teams_by_time on teams (created_at desc, id desc);

alter table accounts
    add column team_id   text references teams (id),
    add column team_role text check (team_role in ('owner', 'member')),
    add constraint accounts_of_teams_have_roles check ((team_id is null) = (team_role is null));
create index accounts_of_team on accounts (team_id) where team_id is not null;

-- Of what a request counted on; null: no team, or a row of a release before.
alter table ledger add column team_id text;

-- A change of a team is told by its id: whoever keeps keys finds those that it binds.
create function team_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('moa_accounts', new.id);
    return null;
end $$;
create trigger teams_notice after update on teams for each row execute function team_changed();

-- A block counts on the team of its account, whoever borrows it.
create function block_counts_on_team() returns trigger language plpgsql as $$
declare
    team text;
begin
    select team_id into team from accounts where id = new.account_id;
    if team is not null and not coalesce(team = any (new.counts_as), false) then
        raise exception 'a block of % counts on its team', new.account_id using errcode = 'serialization_failure';
    end if;
    return new;
end $$;
create trigger blocks_count_on_team before insert on blocks for each row
    when (new.holder <> 'tasks') execute function block_counts_on_team();

-- Subjects beside accounts and keys follow the dimensions, too: their limits are columns, as those of accounts.
alter procedure state_dimensions() rename to state_dimensions_of_ledger;

create procedure state_subjects() language plpgsql as $state$
declare
    subjects text[] := array['teams'];
    one text;
    line text;
    limits text;
    limits_of_accounts text;
begin
    foreach one in array subjects loop
        for line in
            select format('alter table %s add column if not exists %2$s_%3$s bigint check (%2$s_%3$s >= 0)',
                          one, name, period)
            from dimensions, unnest(array['a_day', 'a_month', 'in_total']) period where has_limits
            order by position, period
        loop
            execute line;
        end loop;
    end loop;
    select string_agg(format('%s_%s', name, period), ', ' order by position, period),
           string_agg(format('case when not unlimited then %1$s_%2$s end as %1$s_%2$s', name, period), ', '
                      order by position, period)
    into limits, limits_of_accounts
    from dimensions, unnest(array['a_day', 'a_month', 'in_total']) period where has_limits;
    -- The limits of every subject, for those who ask by its id alone; null: none. What is `unlimited` is not so in
    -- credits, which accounts alone are granted.
    drop view if exists subject_limits;
    select format($$
        create view subject_limits as
            select id as subject, 'account' as kind, %s, micro_credits as micro_credits_in_total from accounts
            union all
            select id, 'key', %s, null from keys
    $$, limits_of_accounts, limits) into line;
    foreach one in array subjects loop
        line := line || format(' union all select id, %L, %s, null from %s', rtrim(one, 's'), limits, one);
    end loop;
    execute line;
end $state$;

create procedure state_dimensions() language plpgsql as $$
begin
    call state_dimensions_of_ledger();
    call state_subjects();
end $$;

call state_subjects();

-- An invitation says what whoever signs up by it becomes, and can be listed and taken back.
alter table invitations
    add column id         text unique,
    add column team_id    text references teams (id),
    add column team_role  text check (team_role in ('owner', 'member')),
    add column revoked_at timestamptz,
    add constraint invitations_to_teams_have_roles check ((team_id is null) = (team_role is null));
update invitations set id = 'inv_' || left(encode(sha256(digest), 'hex'), 24);
create index invitations_by_time on invitations (created_at desc, id desc);
create index invitations_of_team on invitations (team_id, created_at desc) where team_id is not null;
