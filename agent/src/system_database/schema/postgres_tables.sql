-- Version 125 of the shared system database, complete: tables, indexes, trigger.
-- "{schema}" is replaced by the quoted schema name; functions live in files of their own.
-- Executed in one transaction, so none of it may exist before.

CREATE TABLE {schema}.dbos_migrations (
    version BIGINT NOT NULL PRIMARY KEY
);

-- One row per execution of a workflow.
CREATE TABLE {schema}.workflow_status (
    workflow_uuid              TEXT PRIMARY KEY,
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
    class_name                 VARCHAR(255) DEFAULT NULL,
    config_name                VARCHAR(255) DEFAULT NULL,
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
    owner_xid                  TEXT DEFAULT NULL,
    parent_workflow_id         TEXT DEFAULT NULL,
    serialization              TEXT DEFAULT NULL,
    delay_until_epoch_ms       BIGINT DEFAULT NULL,
    was_forked_from            BOOLEAN NOT NULL DEFAULT FALSE,
    rate_limited               BOOLEAN NOT NULL DEFAULT FALSE,
    completed_at               BIGINT,
    attributes                 JSONB,
    schedule_name              TEXT,
    debounce_deadline_epoch_ms BIGINT DEFAULT NULL,
    is_debounced               BOOLEAN NOT NULL DEFAULT FALSE,
    application_name           TEXT DEFAULT NULL,
    creator_xid                TEXT DEFAULT NULL
);

CREATE INDEX workflow_status_created_at_index
    ON {schema}.workflow_status (created_at);
CREATE INDEX idx_workflow_status_pending
    ON {schema}.workflow_status (created_at) WHERE status = 'PENDING';
CREATE INDEX idx_workflow_status_failed
    ON {schema}.workflow_status (status, created_at)
    WHERE status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED');
CREATE INDEX idx_workflow_status_in_flight_v2
    ON {schema}.workflow_status (queue_name, status, priority, created_at) INCLUDE (application_name)
    WHERE status IN ('ENQUEUED', 'PENDING');
CREATE INDEX idx_workflow_status_partition_dequeue_v3
    ON {schema}.workflow_status
       (queue_name, status, queue_partition_key, priority, created_at, workflow_uuid) INCLUDE (application_name)
    WHERE status IN ('ENQUEUED', 'PENDING') AND queue_partition_key IS NOT NULL;
CREATE INDEX idx_workflow_status_rate_limited
    ON {schema}.workflow_status (queue_name, started_at_epoch_ms) WHERE rate_limited = TRUE;
CREATE INDEX idx_workflow_status_delayed
    ON {schema}.workflow_status (delay_until_epoch_ms) WHERE status = 'DELAYED';
CREATE INDEX idx_workflow_status_deadline
    ON {schema}.workflow_status (workflow_deadline_epoch_ms)
    WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED') AND workflow_deadline_epoch_ms IS NOT NULL;
CREATE UNIQUE INDEX uq_workflow_status_dedup_id
    ON {schema}.workflow_status (queue_name, deduplication_id) WHERE deduplication_id IS NOT NULL;
CREATE INDEX idx_workflow_status_forked_from
    ON {schema}.workflow_status (forked_from) WHERE forked_from IS NOT NULL;
CREATE INDEX idx_workflow_status_parent_workflow_id
    ON {schema}.workflow_status (parent_workflow_id) WHERE parent_workflow_id IS NOT NULL;
CREATE INDEX idx_workflow_status_schedule_name
    ON {schema}.workflow_status (schedule_name) WHERE schedule_name IS NOT NULL;
CREATE INDEX idx_workflow_status_completed_at
    ON {schema}.workflow_status (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX idx_workflow_status_started_at
    ON {schema}.workflow_status (started_at_epoch_ms) WHERE started_at_epoch_ms IS NOT NULL;
CREATE INDEX idx_workflow_status_attributes
    ON {schema}.workflow_status USING GIN (attributes) WHERE attributes IS NOT NULL;

-- Payloads of a workflow. No foreign key: retention sweeps them by their stamp.
CREATE TABLE {schema}.workflow_input (
    workflow_uuid       TEXT PRIMARY KEY,
    inputs              TEXT,
    retention_timestamp BIGINT NOT NULL DEFAULT {now_ms}
);
CREATE INDEX idx_workflow_input_retention
    ON {schema}.workflow_input (retention_timestamp);

CREATE TABLE {schema}.workflow_output (
    workflow_uuid       TEXT PRIMARY KEY,
    output              TEXT,
    error               TEXT,
    retention_timestamp BIGINT NOT NULL DEFAULT {now_ms}
);
CREATE INDEX idx_workflow_output_retention
    ON {schema}.workflow_output (retention_timestamp);

-- One row per checkpointed step.
CREATE TABLE {schema}.operation_outputs (
    workflow_uuid         TEXT NOT NULL,
    function_id           INTEGER NOT NULL,
    function_name         TEXT NOT NULL DEFAULT '',
    output                TEXT,
    error                 TEXT,
    child_workflow_id     TEXT,
    started_at_epoch_ms   BIGINT,
    completed_at_epoch_ms BIGINT,
    serialization         TEXT DEFAULT NULL,
    application_name      TEXT DEFAULT NULL,
    retention_timestamp   BIGINT NOT NULL DEFAULT {now_ms},
    PRIMARY KEY (workflow_uuid, function_id)
);
CREATE INDEX idx_operation_outputs_completed_at_function_name_v2
    ON {schema}.operation_outputs (completed_at_epoch_ms, function_name) INCLUDE (application_name);
CREATE INDEX idx_operation_outputs_retention
    ON {schema}.operation_outputs (retention_timestamp);

-- Messages to workflows; flagged when consumed, deleted with their destination.
CREATE TABLE {schema}.notifications (
    message_uuid            TEXT NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
    destination_uuid        TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    topic                   TEXT,
    message                 TEXT NOT NULL,
    created_at_epoch_ms     BIGINT NOT NULL DEFAULT {now_ms},
    serialization           TEXT DEFAULT NULL,
    consumed                BOOLEAN NOT NULL DEFAULT FALSE,
    consumed_by_function_id INTEGER
);
CREATE INDEX idx_workflow_topic
    ON {schema}.notifications (destination_uuid, topic);

-- The latest value of each event, and every value it had with the step that set it.
CREATE TABLE {schema}.workflow_events (
    workflow_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    serialization TEXT DEFAULT NULL,
    PRIMARY KEY (workflow_uuid, key)
);
CREATE TABLE {schema}.workflow_events_history (
    workflow_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    function_id   INTEGER NOT NULL,
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    serialization TEXT DEFAULT NULL,
    PRIMARY KEY (workflow_uuid, function_id, key)
);

CREATE TABLE {schema}.streams (
    workflow_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    "offset"      INTEGER NOT NULL,
    function_id   INTEGER NOT NULL DEFAULT 0,
    serialization TEXT DEFAULT NULL,
    PRIMARY KEY (workflow_uuid, key, "offset")
);

-- State of TypeScript event receivers; nothing here uses it, but they expect it.
CREATE TABLE {schema}.event_dispatch_kv (
    service_name     TEXT NOT NULL,
    workflow_fn_name TEXT NOT NULL,
    key              TEXT NOT NULL,
    value            TEXT,
    update_seq       NUMERIC(38, 0),
    update_time      NUMERIC(38, 15),
    PRIMARY KEY (service_name, workflow_fn_name, key)
);

CREATE TABLE {schema}.queues (
    queue_id                        TEXT PRIMARY KEY DEFAULT gen_random_uuid()::TEXT,
    name                            TEXT NOT NULL UNIQUE,
    concurrency                     INTEGER,
    worker_concurrency              INTEGER,
    rate_limit_max                  INTEGER,
    rate_limit_period_sec           DOUBLE PRECISION,
    priority_enabled                BOOLEAN NOT NULL DEFAULT FALSE,
    partition_queue                 BOOLEAN NOT NULL DEFAULT FALSE,
    polling_interval_sec            DOUBLE PRECISION NOT NULL DEFAULT 1.0,
    created_at                      BIGINT NOT NULL DEFAULT {now_ms},
    updated_at                      BIGINT NOT NULL DEFAULT {now_ms},
    application_name                TEXT DEFAULT NULL,
    partition_concurrency           INTEGER DEFAULT NULL,
    partition_worker_concurrency    INTEGER DEFAULT NULL,
    partition_rate_limit_max        INTEGER DEFAULT NULL,
    partition_rate_limit_period_sec DOUBLE PRECISION DEFAULT NULL
);

CREATE TABLE {schema}.workflow_schedules (
    schedule_id         TEXT PRIMARY KEY,
    schedule_name       TEXT NOT NULL UNIQUE,
    workflow_name       TEXT NOT NULL,
    workflow_class_name TEXT,
    schedule            TEXT NOT NULL,
    status              TEXT NOT NULL DEFAULT 'ACTIVE',
    context             TEXT NOT NULL,
    last_fired_at       TEXT DEFAULT NULL,
    automatic_backfill  BOOLEAN NOT NULL DEFAULT FALSE,
    cron_timezone       TEXT DEFAULT NULL,
    queue_name          TEXT DEFAULT NULL,
    application_name    TEXT DEFAULT NULL
);

CREATE TABLE {schema}.application_versions (
    version_id        TEXT NOT NULL PRIMARY KEY,
    version_name      TEXT NOT NULL UNIQUE,
    version_timestamp BIGINT NOT NULL DEFAULT {now_ms},
    created_at        BIGINT NOT NULL DEFAULT {now_ms},
    application_name  TEXT DEFAULT NULL
);
CREATE UNIQUE INDEX uq_application_versions_owner_version
    ON {schema}.application_versions (application_name, version_name) WHERE application_name IS NOT NULL;
CREATE UNIQUE INDEX uq_application_versions_unclaimed_version
    ON {schema}.application_versions (version_name) WHERE application_name IS NULL;
CREATE INDEX idx_application_versions_timestamp
    ON {schema}.application_versions (version_timestamp DESC);
CREATE INDEX idx_application_versions_owner_timestamp
    ON {schema}.application_versions (application_name, version_timestamp DESC);

-- Wakes whoever waits in recv. The search path is pinned, so the body may only name pg_catalog.
CREATE FUNCTION {schema}.notifications_function() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM pg_notify('dbos_notifications_channel', NEW.destination_uuid || '::' || NEW.topic);
    RETURN NEW;
END
$body$;

CREATE TRIGGER dbos_notifications_trigger AFTER INSERT ON {schema}.notifications
    FOR EACH ROW EXECUTE FUNCTION {schema}.notifications_function();
