-- Whether nobody knew what a task's images cost when its quota was reserved: its settlement says so. The release before
-- writes none.
alter table tasks.tasks add column price_unknown boolean not null default false;
