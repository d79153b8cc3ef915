-- Accounts are found by a part of an id, email or name without being read one by one.
--
-- Pieces of one and two characters in an index of arrays: PostgreSQL has that without an extension, which not every
-- server offers (pg_trgm).

create function pieces_of(whole text) returns text[] language plpgsql immutable strict parallel safe as $$
declare
    singles text[] := string_to_array(lower(whole), null);
    pairs text[];
begin
    select array_agg(one || two) into pairs from unnest(singles, singles[2:]) as neighbours (one, two);
    return singles || pairs;
end $$;

-- Of what is looked for: all that a text which holds it has for certain.
create function pieces_asked_of(part text) returns text[] language sql immutable strict parallel safe as $$
    select case when length(low) < 2 then array[low]
                else (select array_agg(distinct substr(low, at, 2)) from generate_series(1, length(low) - 1) as at) end
    from (select lower(part) as low) as lowered
$$;

create index accounts_by_pieces on accounts using gin (pieces_of(id || E'\n' || coalesce(email, '') || E'\n' || name));
