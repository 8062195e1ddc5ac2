-- Several instances on one store. Columns and times as in 0001.

-- Which instance took this one's place because it advertises the same address. If the replaced one is
-- alive nevertheless, the newcomer finds out here and gives way.
ALTER TABLE instances ADD COLUMN replaced_by TEXT;

-- Which instance serves the request. When that one is gone the request counts as cut off, not as running.
ALTER TABLE idempotency_keys ADD COLUMN instance_id TEXT;
