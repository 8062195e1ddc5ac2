-- Organizations, applications, API keys, the audit log. Times are epoch milliseconds of the
-- database's clock, flags are 0 or 1, JSON is text: the same columns as in SQLite, so that every
-- query is written once.

CREATE TABLE organizations (
    id                   TEXT PRIMARY KEY,
    name                 TEXT NOT NULL UNIQUE,
    audit_retention_days BIGINT NOT NULL DEFAULT 90,
    created_at           BIGINT NOT NULL
);

CREATE TABLE applications (
    id                    TEXT PRIMARY KEY,
    org_id                TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name                  TEXT NOT NULL,
    language              TEXT,
    executor_timeout_secs BIGINT NOT NULL DEFAULT 60,
    recovery_policy       TEXT NOT NULL DEFAULT 'same-version',
    gc_time_threshold_ms  BIGINT,
    gc_rows_threshold     BIGINT,
    global_timeout_ms     BIGINT,
    private_mode          BIGINT NOT NULL DEFAULT 0,
    created_at            BIGINT NOT NULL,
    updated_at            BIGINT NOT NULL,
    UNIQUE (org_id, name)
);

CREATE TABLE api_keys (
    id          TEXT PRIMARY KEY,
    org_id      TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    key_hash    TEXT NOT NULL UNIQUE,
    permissions TEXT NOT NULL,
    app_scoped  BIGINT NOT NULL DEFAULT 0,
    admin       BIGINT NOT NULL DEFAULT 0,
    created_at  BIGINT NOT NULL
);
CREATE UNIQUE INDEX api_keys_name ON api_keys (org_id, admin, name);

-- A scoped key whose last application is deleted keeps app_scoped = 1 and covers nothing.
CREATE TABLE api_key_apps (
    key_id TEXT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    PRIMARY KEY (key_id, app_id)
);
CREATE INDEX api_key_apps_app ON api_key_apps (app_id);

CREATE TABLE audit_log (
    id              TEXT PRIMARY KEY,
    org_id          TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    emit_time       BIGINT NOT NULL,
    operation       TEXT NOT NULL,
    status          TEXT NOT NULL,
    subject_type    TEXT NOT NULL,
    subject_id      TEXT NOT NULL,
    subject_display TEXT NOT NULL,
    target_type     TEXT,
    target_id       TEXT,
    source_ip       TEXT NOT NULL,
    details         TEXT
);
CREATE INDEX audit_log_time ON audit_log (org_id, emit_time);

-- One row per Idempotency-Key in use. `response` is sealed with a key that only the caller can
-- derive (see api/idempotency.rs), for it may hold a new API key.
CREATE TABLE idempotency_keys (
    id           TEXT PRIMARY KEY,
    request_hash TEXT NOT NULL,
    started_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    response     TEXT
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

CREATE TABLE settings (
    name       TEXT PRIMARY KEY,
    value      TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
