-- Executors, what became of lost ones, and the instances of the server. Columns and times as in
-- 0001.

-- One row per executor: an id with a version. `generation` grows whenever somebody else becomes
-- responsible for the row (a connection, a claim): whoever acts states the one they saw, so that
-- nobody acts on what is no longer so.
CREATE TABLE executors (
    app_id             TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    executor_id        TEXT NOT NULL,
    app_version        TEXT NOT NULL,
    hostname           TEXT,
    language           TEXT,
    sdk_version        TEXT,
    metadata           TEXT,
    state              TEXT NOT NULL,
    generation         BIGINT NOT NULL DEFAULT 0,
    instance_id        TEXT,
    session_id         TEXT,
    unresponsive_since BIGINT,
    disconnected_at    BIGINT,
    grace_from         BIGINT,
    noticed_at         BIGINT,
    dead_at            BIGINT,
    recovery_id        TEXT,
    claim_instance     TEXT,
    claim_until        BIGINT,
    created_at         BIGINT NOT NULL,
    updated_at         BIGINT NOT NULL,
    PRIMARY KEY (app_id, executor_id, app_version)
);
CREATE INDEX executors_state ON executors (state, grace_from);
CREATE INDEX executors_instance ON executors (instance_id, state);

CREATE TABLE recoveries (
    id                TEXT PRIMARY KEY,
    app_id            TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    executor_id       TEXT NOT NULL,
    app_version       TEXT NOT NULL,
    hostname          TEXT,
    status            TEXT NOT NULL,
    reason            TEXT,
    pending_workflows BIGINT,
    disconnected_at   BIGINT NOT NULL,
    dead_at           BIGINT,
    dispatched_at     BIGINT,
    completed_at      BIGINT,
    recovered_by      TEXT,
    assigned_version  TEXT,
    note              TEXT
);
CREATE INDEX recoveries_app ON recoveries (app_id, disconnected_at);
CREATE INDEX recoveries_status ON recoveries (status, completed_at);

CREATE TABLE recovery_attempts (
    recovery_id TEXT NOT NULL REFERENCES recoveries (id) ON DELETE CASCADE,
    seq         BIGINT NOT NULL,
    executor_id TEXT NOT NULL,
    at          BIGINT NOT NULL,
    outcome     TEXT NOT NULL,
    error       TEXT,
    PRIMARY KEY (recovery_id, seq)
);

-- Instances of the server. `serving_since` begins anew when an instance could not reach the
-- database for a while: from then on executors had a chance to be seen.
CREATE TABLE instances (
    id            TEXT PRIMARY KEY,
    address       TEXT NOT NULL,
    serving_since BIGINT NOT NULL,
    heartbeat_at  BIGINT NOT NULL,
    stopped_at    BIGINT
);

-- Executors that an operator evicted; dials of theirs are refused for a while.
CREATE TABLE evictions (
    app_id      TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    executor_id TEXT NOT NULL,
    app_version TEXT NOT NULL,
    until       BIGINT NOT NULL,
    reason      TEXT NOT NULL,
    PRIMARY KEY (app_id, executor_id, app_version)
);
