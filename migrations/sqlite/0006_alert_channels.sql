-- Channels of alerts, the history of alerts, and what is to be told to whom. Columns and times as in
-- 0001.

-- `settings` is what the API shows of a channel, `secrets` what it never shows: JSON, in the form that
-- policies/channels/seal.rs writes. A channel may tell something when `free_at` allows it.
CREATE TABLE alert_channels (
    id         TEXT PRIMARY KEY,
    org_id     TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    kind       TEXT NOT NULL,
    settings   TEXT NOT NULL,
    secrets    TEXT NOT NULL,
    free_at    BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (org_id, name)
);

CREATE TABLE alerting_rule_channels (
    rule_id    TEXT NOT NULL REFERENCES alerting_rules (id) ON DELETE CASCADE,
    channel_id TEXT NOT NULL REFERENCES alert_channels (id) ON DELETE CASCADE,
    PRIMARY KEY (rule_id, channel_id)
);
CREATE INDEX alerting_rule_channels_channel ON alerting_rule_channels (channel_id);

-- When the rule's channels were last told; `last_fired_at` is the handler's.
ALTER TABLE alerting_rules ADD COLUMN told_at BIGINT;

-- One row per time that a rule's condition held. It outlives the rule. `told`: its channels were.
CREATE TABLE alerts (
    id              TEXT PRIMARY KEY,
    app_id          TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    rule_id         TEXT NOT NULL,
    rule_type       TEXT NOT NULL,
    message         TEXT NOT NULL,
    metadata        TEXT NOT NULL,
    told            BIGINT NOT NULL DEFAULT 0,
    handler_app     TEXT,
    handler_outcome TEXT,
    handler_at      BIGINT,
    since           BIGINT NOT NULL,
    seen_at         BIGINT NOT NULL,
    resolved_at     BIGINT
);
CREATE UNIQUE INDEX alerts_firing ON alerts (rule_id) WHERE resolved_at IS NULL;
CREATE INDEX alerts_app ON alerts (app_id, since);
CREATE INDEX alerts_resolved ON alerts (resolved_at);

-- The outbox. `notice` is everything that is told, JSON. `claim_instance` is at it until `claim_until`.
CREATE TABLE alert_deliveries (
    id             TEXT PRIMARY KEY,
    channel_id     TEXT NOT NULL REFERENCES alert_channels (id) ON DELETE CASCADE,
    alert_id       TEXT NOT NULL,
    event          TEXT NOT NULL,
    notice         TEXT NOT NULL,
    state          TEXT NOT NULL,
    attempts       BIGINT NOT NULL DEFAULT 0,
    next_at        BIGINT NOT NULL,
    claim_instance TEXT,
    claim_until    BIGINT,
    error          TEXT,
    created_at     BIGINT NOT NULL,
    ended_at       BIGINT
);
CREATE INDEX alert_deliveries_state ON alert_deliveries (state, next_at);
CREATE INDEX alert_deliveries_channel ON alert_deliveries (channel_id, state);
CREATE INDEX alert_deliveries_alert ON alert_deliveries (alert_id, created_at);

-- Every request to a channel, tests among them.
CREATE TABLE alert_attempts (
    id          TEXT PRIMARY KEY,
    channel_id  TEXT NOT NULL REFERENCES alert_channels (id) ON DELETE CASCADE,
    delivery_id TEXT NOT NULL,
    alert_id    TEXT,
    event       TEXT NOT NULL,
    at          BIGINT NOT NULL,
    delivered   BIGINT NOT NULL,
    status      BIGINT,
    latency_ms  BIGINT NOT NULL,
    error       TEXT
);
CREATE INDEX alert_attempts_channel ON alert_attempts (channel_id, at);

-- Work that an operator gave up, for as long as it is still there: nobody looks for its owner again.
CREATE TABLE abandoned_executors (
    app_id       TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    executor_id  TEXT NOT NULL,
    app_version  TEXT NOT NULL,
    abandoned_at BIGINT NOT NULL,
    PRIMARY KEY (app_id, executor_id, app_version)
);
INSERT INTO abandoned_executors (app_id, executor_id, app_version, abandoned_at)
    SELECT app_id, executor_id, app_version, MAX(completed_at) FROM recoveries
    WHERE status = 'ABANDONED' AND completed_at IS NOT NULL
    GROUP BY app_id, executor_id, app_version;
