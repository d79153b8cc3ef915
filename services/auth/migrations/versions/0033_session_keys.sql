-- A session may ask models, as the page does for who is logged in: what it uses is booked on a key that ends with it.

alter table keys add column of_session boolean not null default false;

create function session_ends_key() returns trigger language plpgsql as $$
begin
    update keys set revoked_at = now() where digest = old.digest and of_session and revoked_at is null;
    return null;
end $$;
create trigger session_ends_key after delete on sessions for each row execute function session_ends_key();

-- A key that is cached need not be read again for each minute that its session lives on.
create function session_keeps_key() returns trigger language plpgsql as $$
begin
    update keys set expires_at = new.expires_at
    where digest = new.digest and of_session and revoked_at is null
          and expires_at < new.expires_at - interval '5 minutes';
    return null;
end $$;
create trigger session_keeps_key after update of expires_at on sessions for each row
    execute function session_keeps_key();
