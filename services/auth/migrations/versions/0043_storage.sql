-- Room in the pages of the sums of usage, so that a change stays in its page and leaves no index entry behind; and vacuum in
-- proportion to what changes, not to what there is: a fifth of a year's sums is waited for too long.
-- Writers and readers go on meanwhile. Pages that are there stay as full as they are.
alter table usage_days set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
alter table spend set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
alter table blocks set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
alter table quota_counters set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
alter table open_reservations set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
-- Nothing of it changes: vacuum freezes its pages and makes them known as visible to all, a little at a time.
alter table ledger set (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
