-- Ids that stand for one thing only: no key has its account's id, and days that counted one twice are put right.
--
-- The account of callers with their own provider key had its id for its key, too: what was borrowed was counted once,
-- what came back twice. Rows of the ledger and of blocks keep the id that they were written with.

create temporary table mended on commit drop as select account_id from keys where id = account_id;
update keys set id = 'key_' || id where id = account_id;
select pg_notify('moa_accounts', account_id) from mended;

update quota_days q set tokens = moved.tokens, images = moved.images from (
    select account_id, day,
           coalesce(sum(case when kind in ('borrow', 'late') then tokens when kind in ('return', 'expire') then -tokens
                    end), 0) as tokens,
           coalesce(sum(case when kind in ('borrow', 'late') then images when kind in ('return', 'expire') then -images
                    end), 0) as images
    from ledger where account_id in (select account_id from mended) group by account_id, day
) moved where q.subject = moved.account_id and q.day = moved.day;

alter table keys add constraint keys_have_ids_of_their_own check (id like 'key\_%');
alter table accounts add constraint accounts_have_ids_of_their_own check (id not like 'key\_%');
