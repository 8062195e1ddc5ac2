-- Saved views: named filters of an application's workflow list, shared by everybody who may read it.
-- Columns and times as in 0001. `query` is the query string of the list's address.
CREATE TABLE workflow_views (
    app_id     TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    query      TEXT NOT NULL,
    saved_by   TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (app_id, name)
);
