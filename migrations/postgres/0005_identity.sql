-- People, their roles, and the ways into an organization. Columns and times as in 0001.

-- One row per registered person: `issuer` and `subject` are who they are at the identity provider.
-- `role` is the name of a built-in role or of one of the organization's own.
CREATE TABLE users (
    id          TEXT PRIMARY KEY,
    issuer      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    name        TEXT NOT NULL UNIQUE,
    email       TEXT NOT NULL,
    given_name  TEXT NOT NULL,
    family_name TEXT NOT NULL,
    company     TEXT NOT NULL,
    org_id      TEXT NOT NULL REFERENCES organizations (id),
    role        TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    UNIQUE (issuer, subject)
);
CREATE INDEX users_org ON users (org_id, role);

-- An organization's own roles; `permissions` is a JSON array of names.
CREATE TABLE roles (
    org_id      TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    permissions TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (org_id, name)
);

-- Each lets one person in; the row goes when it is used. Only the hash is kept.
CREATE TABLE join_secrets (
    secret_hash TEXT PRIMARY KEY,
    org_id      TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX join_secrets_expiry ON join_secrets (expires_at);

-- People with an address of the domain (lower case) join the organization when they register.
CREATE TABLE domain_claims (
    id           TEXT PRIMARY KEY,
    org_id       TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    domain       TEXT NOT NULL UNIQUE,
    requested_by TEXT NOT NULL,
    requested_at BIGINT NOT NULL
);
CREATE INDEX domain_claims_org ON domain_claims (org_id);

-- People whom an administrator removed: a domain claim does not bring them back.
CREATE TABLE removed_members (
    org_id     TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    issuer     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    removed_at BIGINT NOT NULL,
    PRIMARY KEY (org_id, issuer, subject)
);
