-- The spool in parts: neither a worker nor its connection to the database holds an image twice.

create table tasks.spool_parts (
    task_id  text not null,
    position int not null,
    part     int not null,
    data     bytea not null,
    primary key (task_id, position, part),
    foreign key (task_id, position) references tasks.spool (task_id, position) on delete cascade on update cascade
);
alter table tasks.spool_parts alter column data set storage external;
insert into tasks.spool_parts select task_id, position, 0, data from tasks.spool;
alter table tasks.spool drop column data;
