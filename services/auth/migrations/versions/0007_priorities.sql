-- Priorities of accounts, and of keys where theirs is lower.

alter table accounts add column priority text not null default 'normal' check (priority in ('low', 'normal', 'high'));
alter table keys add column priority text check (priority in ('low', 'normal', 'high'));

drop trigger keys_notice on keys;
create trigger keys_notice after delete or update of
    account_id, digest, scopes, tokens_a_day, images_a_day, expires_at, revoked_at, priority on keys
    for each row execute function account_changed();
