-- The way back from 0009: what it added goes, with what it holds.
ALTER TABLE idempotency_keys DROP COLUMN instance_id;
ALTER TABLE instances DROP COLUMN replaced_by;
