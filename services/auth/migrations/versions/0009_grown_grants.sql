-- Grants that grow at settlement: what a provider reports beyond a reservation, charged to what the day has left.

-- Not validated: the rows that are there were checked against a narrower list, and a scan would hold the ledger.
alter table ledger drop constraint ledger_kind_check;
alter table ledger add constraint ledger_kind_check
    -- grow: quota -> block, what was consumed beyond a reservation; its `settle` row charges it to the block
    check (kind in ('borrow', 'grow', 'settle', 'orphan', 'return', 'expire', 'late')) not valid;
