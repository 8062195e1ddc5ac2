-- The same tables on SQLite. No official SDK opens this file, so what only they need is left out:
-- the SQL functions, the notification trigger, event_dispatch_kv and the covering columns of indexes.
-- Booleans are 0/1 integers, attributes JSON text.

CREATE TABLE dbos_migrations (
    version BIGINT NOT NULL PRIMARY KEY
);

-- One row per execution of a workflow.
CREATE TABLE workflow_status (
    workflow_uuid              TEXT NOT NULL PRIMARY KEY,
    status                     TEXT,
    name                       TEXT,
    authenticated_user         TEXT,
    assumed_role               TEXT,
    authenticated_roles        TEXT,
    request                    TEXT,
    output                     TEXT,
    error                      TEXT,
    executor_id                TEXT,
    created_at                 BIGINT NOT NULL DEFAULT {now_ms},
    updated_at                 BIGINT NOT NULL DEFAULT {now_ms},
    application_version        TEXT,
    application_id             TEXT,
    class_name                 TEXT,
    config_name                TEXT,
    recovery_attempts          BIGINT DEFAULT 0,
    queue_name                 TEXT,
    workflow_timeout_ms        BIGINT,
    workflow_deadline_epoch_ms BIGINT,
    inputs                     TEXT,
    started_at_epoch_ms        BIGINT,
    deduplication_id           TEXT,
    priority                   INTEGER NOT NULL DEFAULT 0,
    queue_partition_key        TEXT,
    forked_from                TEXT,
    owner_xid                  TEXT,
    parent_workflow_id         TEXT,
    serialization              TEXT,
    delay_until_epoch_ms       BIGINT,
    was_forked_from            BOOLEAN NOT NULL DEFAULT FALSE,
    rate_limited               BOOLEAN NOT NULL DEFAULT FALSE,
    completed_at               BIGINT,
    attributes                 TEXT,
    schedule_name              TEXT,
    debounce_deadline_epoch_ms BIGINT,
    is_debounced               BOOLEAN NOT NULL DEFAULT FALSE,
    application_name           TEXT,
    creator_xid                TEXT
);

CREATE INDEX workflow_status_created_at_index
    ON workflow_status (created_at);
CREATE INDEX idx_workflow_status_pending
    ON workflow_status (created_at) WHERE status = 'PENDING';
CREATE INDEX idx_workflow_status_failed
    ON workflow_status (status, created_at)
    WHERE status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED');
CREATE INDEX idx_workflow_status_in_flight_v2
    ON workflow_status (queue_name, status, priority, created_at)
    WHERE status IN ('ENQUEUED', 'PENDING');
CREATE INDEX idx_workflow_status_partition_dequeue_v3
    ON workflow_status
       (queue_name, status, queue_partition_key, priority, created_at, workflow_uuid)
    WHERE status IN ('ENQUEUED', 'PENDING') AND queue_partition_key IS NOT NULL;
CREATE INDEX idx_workflow_status_rate_limited
    ON workflow_status (queue_name, started_at_epoch_ms) WHERE rate_limited = TRUE;
CREATE INDEX idx_workflow_status_delayed
    ON workflow_status (delay_until_epoch_ms) WHERE status = 'DELAYED';
CREATE INDEX idx_workflow_status_deadline
    ON workflow_status (workflow_deadline_epoch_ms)
    WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED') AND workflow_deadline_epoch_ms IS NOT NULL;
CREATE UNIQUE INDEX uq_workflow_status_dedup_id
    ON workflow_status (queue_name, deduplication_id) WHERE deduplication_id IS NOT NULL;
CREATE INDEX idx_workflow_status_forked_from
    ON workflow_status (forked_from) WHERE forked_from IS NOT NULL;
CREATE INDEX idx_workflow_status_parent_workflow_id
    ON workflow_status (parent_workflow_id) WHERE parent_workflow_id IS NOT NULL;
CREATE INDEX idx_workflow_status_schedule_name
    ON workflow_status (schedule_name) WHERE schedule_name IS NOT NULL;
CREATE INDEX idx_workflow_status_completed_at
    ON workflow_status (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX idx_workflow_status_started_at
    ON workflow_status (started_at_epoch_ms) WHERE started_at_epoch_ms IS NOT NULL;

-- Payloads of a workflow. No foreign key: retention sweeps them by their stamp.
CREATE TABLE workflow_input (
    workflow_uuid       TEXT NOT NULL PRIMARY KEY,
    inputs              TEXT,
    retention_timestamp BIGINT NOT NULL DEFAULT {now_ms}
);
CREATE INDEX idx_workflow_input_retention
    ON workflow_input (retention_timestamp);

CREATE TABLE workflow_output (
    workflow_uuid       TEXT NOT NULL PRIMARY KEY,
    output              TEXT,
    error               TEXT,
    retention_timestamp BIGINT NOT NULL DEFAULT {now_ms}
);
CREATE INDEX idx_workflow_output_retention
    ON workflow_output (retention_timestamp);

-- One row per checkpointed step.
CREATE TABLE operation_outputs (
    workflow_uuid         TEXT NOT NULL,
    function_id           INTEGER NOT NULL,
    function_name         TEXT NOT NULL DEFAULT '',
    output                TEXT,
    error                 TEXT,
    child_workflow_id     TEXT,
    started_at_epoch_ms   BIGINT,
    completed_at_epoch_ms BIGINT,
    serialization         TEXT,
    application_name      TEXT,
    retention_timestamp   BIGINT NOT NULL DEFAULT {now_ms},
    PRIMARY KEY (workflow_uuid, function_id)
);
CREATE INDEX idx_operation_outputs_completed_at_function_name_v2
    ON operation_outputs (completed_at_epoch_ms, function_name);
CREATE INDEX idx_operation_outputs_retention
    ON operation_outputs (retention_timestamp);

-- Messages to workflows; flagged when consumed, deleted with their destination.
CREATE TABLE notifications (
    message_uuid            TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))) PRIMARY KEY,
    destination_uuid        TEXT NOT NULL
        REFERENCES workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    topic                   TEXT,
    message                 TEXT NOT NULL,
    created_at_epoch_ms     BIGINT NOT NULL DEFAULT {now_ms},
    serialization           TEXT,
    consumed                BOOLEAN NOT NULL DEFAULT FALSE,
    consumed_by_function_id INTEGER
);
CREATE INDEX idx_workflow_topic
    ON notifications (destination_uuid, topic);

-- The latest value of each event, and every value it had with the step that set it.
CREATE TABLE workflow_events (
    workflow_uuid TEXT NOT NULL
        REFERENCES workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    serialization TEXT,
    PRIMARY KEY (workflow_uuid, key)
);
CREATE TABLE workflow_events_history (
    workflow_uuid TEXT NOT NULL
        REFERENCES workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    function_id   INTEGER NOT NULL,
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    serialization TEXT,
    PRIMARY KEY (workflow_uuid, function_id, key)
);

CREATE TABLE streams (
    workflow_uuid TEXT NOT NULL
        REFERENCES workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    "offset"      INTEGER NOT NULL,
    function_id   INTEGER NOT NULL DEFAULT 0,
    serialization TEXT,
    PRIMARY KEY (workflow_uuid, key, "offset")
);

CREATE TABLE queues (
    queue_id                        TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    name                            TEXT NOT NULL UNIQUE,
    concurrency                     INTEGER,
    worker_concurrency              INTEGER,
    rate_limit_max                  INTEGER,
    rate_limit_period_sec           REAL,
    priority_enabled                BOOLEAN NOT NULL DEFAULT FALSE,
    partition_queue                 BOOLEAN NOT NULL DEFAULT FALSE,
    polling_interval_sec            REAL NOT NULL DEFAULT 1.0,
    created_at                      BIGINT NOT NULL DEFAULT {now_ms},
    updated_at                      BIGINT NOT NULL DEFAULT {now_ms},
    application_name                TEXT,
    partition_concurrency           INTEGER,
    partition_worker_concurrency    INTEGER,
    partition_rate_limit_max        INTEGER,
    partition_rate_limit_period_sec REAL
);

CREATE TABLE workflow_schedules (
    schedule_id         TEXT NOT NULL PRIMARY KEY,
    schedule_name       TEXT NOT NULL UNIQUE,
    workflow_name       TEXT NOT NULL,
    workflow_class_name TEXT,
    schedule            TEXT NOT NULL,
    status              TEXT NOT NULL DEFAULT 'ACTIVE',
    context             TEXT NOT NULL,
    last_fired_at       TEXT,
    automatic_backfill  BOOLEAN NOT NULL DEFAULT FALSE,
    cron_timezone       TEXT,
    queue_name          TEXT,
    application_name    TEXT
);

CREATE TABLE application_versions (
    version_id        TEXT NOT NULL PRIMARY KEY,
    version_name      TEXT NOT NULL UNIQUE,
    version_timestamp BIGINT NOT NULL DEFAULT {now_ms},
    created_at        BIGINT NOT NULL DEFAULT {now_ms},
    application_name  TEXT
);
CREATE UNIQUE INDEX uq_application_versions_owner_version
    ON application_versions (application_name, version_name) WHERE application_name IS NOT NULL;
CREATE UNIQUE INDEX uq_application_versions_unclaimed_version
    ON application_versions (version_name) WHERE application_name IS NULL;
CREATE INDEX idx_application_versions_timestamp
    ON application_versions (version_timestamp DESC);
CREATE INDEX idx_application_versions_owner_timestamp
    ON application_versions (application_name, version_timestamp DESC);
