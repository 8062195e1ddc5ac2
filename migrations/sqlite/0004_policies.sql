-- Periodic work on applications, stored metrics, autoscaling policies and alerting rules. Columns
-- and times as in 0001.

-- One row per application and job. Whoever holds the lease does the round; `due_at` is when the
-- next one may begin, `done_until` how far the last one that succeeded came.
CREATE TABLE policy_rounds (
    app_id      TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    job         TEXT NOT NULL,
    holder      TEXT,
    lease_until BIGINT NOT NULL,
    due_at      BIGINT NOT NULL,
    done_until  BIGINT,
    PRIMARY KEY (app_id, job)
);

-- Counts of an interval: `time_bucket` is its start, `granularity` its length in seconds.
CREATE TABLE app_metrics (
    app_id      TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    time_bucket BIGINT NOT NULL,
    metric_type TEXT NOT NULL,
    metric_name TEXT NOT NULL,
    granularity BIGINT NOT NULL,
    value       BIGINT NOT NULL,
    PRIMARY KEY (app_id, time_bucket, metric_type, metric_name)
);
CREATE INDEX app_metrics_time ON app_metrics (time_bucket);

CREATE TABLE autoscaling_policies (
    app_id       TEXT PRIMARY KEY REFERENCES applications (id) ON DELETE CASCADE,
    queue_name   TEXT NOT NULL,
    rollout      TEXT,
    updated_at   BIGINT NOT NULL
);

-- `metadata` is the rule's condition, a JSON object.
CREATE TABLE alerting_rules (
    id                TEXT PRIMARY KEY,
    app_id            TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    receiving_app_id  TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    rule_type         TEXT NOT NULL,
    metadata          TEXT NOT NULL,
    min_interval_secs BIGINT,
    last_fired_at     BIGINT,
    created_at        BIGINT NOT NULL
);
CREATE INDEX alerting_rules_app ON alerting_rules (app_id, created_at);
CREATE INDEX alerting_rules_receiver ON alerting_rules (receiving_app_id);
