-- What ran when its account was deleted is booked later: its user is forgotten then, too.
create function ledger_forgets_users() returns trigger language plpgsql as $$
begin
    if is_deleted(new.account_id) then
        new.tags := nullif(array(select t from unnest(new.tags) t where not starts_with(t, 'user:')), '{}');
    end if;
    return new;
end $$;
create trigger ledger_forgets_users before insert on ledger for each row
    when (new.tags is not null) execute function ledger_forgets_users();
