-- Credits are counted in the quota ledger (docs/decisions/0019-amounts.md); what was counted here is carried over to it.
--
-- Processes of the release before go on beside this schema: they end what they created, create nothing that costs
-- credits, and take up nothing whose credits are in the ledger.

-- First this one: whoever writes the others has written to it before.
lock table tasks.tasks in access exclusive mode;

alter table tasks.tasks
    -- Whether its price is reserved with its images; if not, it is held in `tasks.accounts`.
    add column in_ledger    boolean not null default false,
    -- The fence as this release writes it: the one before, which would not settle credits, cannot claim such a task.
    add column ledger_fence bigint not null default 0,
    add constraint tasks_in_ledger_are_of_this_release check (not in_ledger or ledger_fence = fence);

create function tasks.refuse_price() returns trigger language plpgsql as $$
begin
    -- A code by which a process of the release before tells its caller to try again.
    raise exception using errcode = 'cannot_connect_now', message = 'credits are counted by a newer release';
end $$;
create trigger tasks_priced before insert on tasks.tasks for each row
    when (new.price_micros > 0 and not new.in_ledger) execute function tasks.refuse_price();

-- Entries that the ledger was not told of yet. What was released before is nothing to it.
create table tasks.credits_to_carry (entry_id bigint primary key);
insert into tasks.credits_to_carry
select e.id from tasks.credit_entries e
where not exists (select 1 from tasks.credit_entries r where r.reference = e.reference and r.kind = 'release');

create function tasks.carry_entry() returns trigger language plpgsql as $$
begin
    insert into tasks.credits_to_carry values (new.id);
    perform pg_notify('tasks_owed', '');
    return null;
end $$;
create trigger credit_entries_carried after insert on tasks.credit_entries for each row
    execute function tasks.carry_entry();
