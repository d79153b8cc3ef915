-- Reservations that outlive their lease, because their holder still reports them.

-- Whether its lease or block is over and what it reserved is kept aside for it alone.
alter table open_reservations add column held boolean not null default false;
-- When a block was over but for what is kept aside for such reservations.
alter table blocks add column ended_at timestamptz;
