-- Operations on many workflows. Columns and times as in 0001.

-- One row per operation. `claim_instance` drives it until `claim_until`; whoever writes progress
-- states it. `selection` and `options` are JSON as the caller gave them, `sample` some of what was
-- selected; `total` is null until the workflows are selected.
CREATE TABLE operations (
    id             TEXT PRIMARY KEY,
    app_id         TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    kind           TEXT NOT NULL,
    state          TEXT NOT NULL,
    selection      TEXT NOT NULL,
    options        TEXT NOT NULL,
    dry_run        BIGINT NOT NULL,
    most           BIGINT NOT NULL,
    reason         TEXT,
    requested_by   TEXT NOT NULL,
    total          BIGINT,
    truncated      BIGINT NOT NULL DEFAULT 0,
    succeeded      BIGINT NOT NULL DEFAULT 0,
    failed         BIGINT NOT NULL DEFAULT 0,
    sample         TEXT,
    message        TEXT,
    claim_instance TEXT,
    claim_until    BIGINT,
    created_at     BIGINT NOT NULL,
    started_at     BIGINT,
    completed_at   BIGINT
);
CREATE INDEX operations_app ON operations (app_id, created_at);
CREATE INDEX operations_state ON operations (state, claim_until);

-- The workflows of an operation, in order; `outcome` is null until one is done.
CREATE TABLE operation_items (
    operation_id TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    seq          BIGINT NOT NULL,
    workflow_id  TEXT NOT NULL,
    outcome      TEXT,
    error        TEXT,
    PRIMARY KEY (operation_id, seq)
);
CREATE INDEX operation_items_outcome ON operation_items (operation_id, outcome);
