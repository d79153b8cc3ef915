-- Which trace a task belongs to: its work and its webhooks are recorded there too.

-- With a default: a process of the version before goes on writing rows while others are brought up to date.
alter table tasks.tasks add column traceparent text not null default '';
