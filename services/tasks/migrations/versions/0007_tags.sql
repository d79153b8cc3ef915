-- What a task's caller calls it (`moa-tags`): it counts on budgets and is reported by these. The release before writes none.
alter table tasks.tasks add column tags text[] not null default '{}';
