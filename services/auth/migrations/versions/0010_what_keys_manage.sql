-- Keys say what they manage, and count on with what made or preceded them.

-- What a key may do beside using models: 'account', 'admin'.
alter table keys add column manages text[] not null default '{}' check (manages <@ array['account', 'admin']),
                 -- Whose counters its own limits count on: of the key that it replaced; null: its own.
                 add column counts_as text,
                 -- The key with limits that made it, and whose limits it keeps together with the others that it made.
                 add column bound_by text;

-- Until now a key without scopes managed its account, and an administrator's everything.
update keys k set manages = case when a.role = 'admin' then array['account', 'admin'] else array['account'] end
from accounts a where a.id = k.account_id and k.scopes = '[]';

-- On which days a block was borrowed from, beside its account's; null: its key's.
alter table blocks add column counts_as text[];

drop trigger keys_notice on keys;
create trigger keys_notice after delete or update of account_id, digest, scopes, tokens_a_day, images_a_day,
    requests_a_minute, concurrent_requests, expires_at, revoked_at, priority, manages, counts_as, bound_by on keys
    for each row execute function account_changed();
