-- Requests and results of batches are encrypted; those of before are not, and go with their batches.

alter table tasks.message_batches add column sealed boolean not null default false;
