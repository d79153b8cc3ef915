-- Tokens a minute of accounts and keys, beside requests a minute, in the same rows of paces.

alter table accounts add column tokens_a_minute bigint check (tokens_a_minute >= 0);
alter table keys add column tokens_a_minute bigint check (tokens_a_minute >= 0);

-- How many tokens could be used at the same moment; below zero where more was used than was set aside. Null: a minute's.
alter table paces add column tokens double precision;
