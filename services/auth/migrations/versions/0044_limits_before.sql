-- What limits of an account were before an owner of its team changed them, by column: an owner may take back what owners did.
alter table accounts add column limits_before jsonb not null default '{}';
