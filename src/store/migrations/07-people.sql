-- Roles, and keys for the admin API, of which a person may have several.

CREATE TABLE role (
    id          BLOB PRIMARY KEY CHECK (length(id) = 16),
    -- NULL is the instance's, to be held in any tenant.
    tenant      TEXT REFERENCES tenant (name),
    name        TEXT NOT NULL,
    -- ["permission"]
    permissions TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- No tenant has an empty name.
CREATE UNIQUE INDEX role_name ON role (coalesce(tenant, ''), name);

-- Who holds which role, and in which tenant it counts.
CREATE TABLE held_role (
    user   BLOB NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    tenant TEXT NOT NULL REFERENCES tenant (name) ON DELETE CASCADE,
    role   BLOB NOT NULL REFERENCES role (id) ON DELETE CASCADE,
    PRIMARY KEY (user, tenant, role)
) STRICT, WITHOUT ROWID;
CREATE INDEX held_role_tenant ON held_role (tenant);
CREATE INDEX held_role_role ON held_role (role);

-- A key is not here, only its digest.
CREATE TABLE api_key (
    digest       BLOB PRIMARY KEY CHECK (length(digest) = 32),
    user         BLOB NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    -- ["permission"]: no more than these of what the person may do; NULL is all.
    permissions  TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    -- To the hour.
    last_used_at INTEGER,
    purge_at     INTEGER,
    UNIQUE (user, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX api_key_purge ON api_key (purge_at);

-- When the key of before was made is not known; it is not older than its person.
INSERT INTO api_key SELECT api_key, id, 'key', NULL, created_at, NULL, NULL, NULL FROM user WHERE api_key IS NOT NULL;
-- The column stays, empty: a column that is UNIQUE goes only with its table.
UPDATE user SET api_key = NULL;
