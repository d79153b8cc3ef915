-- Accounts can be deleted: their ids stay in the books, and nothing of a person does.

alter table accounts
    -- When an administrator deleted it. It is disabled, too, for processes of the release before.
    add column deleted_at timestamptz,
    add constraint deleted_accounts_are_disabled check (deleted_at is null or disabled_at is not null),
    add constraint deleted_accounts_are_anonymous check (
        deleted_at is null or email is null and name = '' and password_hash is null);

create function is_deleted(account text) returns boolean language sql stable as $$
    select exists (select from accounts where id = account and deleted_at is not null)
$$;

-- The audit log and the ledger are appended to alone, but for what people called themselves and their requests: that is
-- forgotten with their account.
create function audit_only_forgets() returns trigger language plpgsql as $$
begin
    if to_jsonb(new) - 'details' is distinct from to_jsonb(old) - 'details' or not is_deleted(old.account_id)
        or not new.details <@ old.details then
        raise exception 'audit is append-only';
    end if;
    return new;
end $$;
drop trigger audit_append_only on audit;
create trigger audit_append_only before delete or truncate on audit
    for each statement execute function is_append_only();
create trigger audit_only_forgets before update on audit for each row execute function audit_only_forgets();

create function ledger_only_forgets() returns trigger language plpgsql as $$
begin
    if to_jsonb(new) - 'tags' is distinct from to_jsonb(old) - 'tags' or not is_deleted(old.account_id)
        or not coalesce(new.tags, '{}') <@ coalesce(old.tags, '{}') then
        raise exception 'the ledger is append-only';
    end if;
    return new;
end $$;
drop trigger ledger_append_only on ledger;
create trigger ledger_append_only before update on ledger for each row execute function ledger_only_forgets();
create trigger ledger_never_truncated before truncate on ledger
    for each statement execute function ledger_is_append_only();
