-- The team whose owner made a budget: it binds while whom it binds is in that team. Null: an administrator made it.
alter table budgets add column team_id text references teams (id);
