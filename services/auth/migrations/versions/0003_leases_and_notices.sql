-- Leases cut from blocks, and notices of what changed.

alter table ledger add column lease_id text;

-- Leases that were taken back before their block ended. What is settled under them later comes from the day.
create table ended_leases (
    lease_id text primary key,
    block_id uuid not null references blocks (id),
    ended_at timestamptz not null default now()
);
create index ended_leases_of_block on ended_leases (block_id);

create index ledger_late on ledger (account_id, day) where kind = 'late';

-- Tells replicas whose cached keys are stale.
create function account_changed() returns trigger language plpgsql as $$
declare
    changed jsonb := to_jsonb(case when tg_op = 'DELETE' then old else new end);
begin
    perform pg_notify('moa_accounts', case tg_table_name when 'accounts' then changed ->> 'id'
                                                         else changed ->> 'account_id' end);
    return null;
end $$;
create trigger accounts_notice after update or delete on accounts
    for each row execute function account_changed();
create trigger rules_notice after insert or update or delete on rules
    for each row execute function account_changed();
create trigger keys_notice after delete or update of
    account_id, digest, scopes, tokens_a_day, images_a_day, expires_at, revoked_at on keys
    for each row execute function account_changed();
