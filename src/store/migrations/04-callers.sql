
-- Local applications that may use the relay. A caller's key is not here, only its digest.
CREATE TABLE caller (
    id         BLOB PRIMARY KEY CHECK (length(id) = 16),
    tenant     TEXT NOT NULL REFERENCES tenant (name),
    name       TEXT NOT NULL,
    key        BLOB NOT NULL UNIQUE CHECK (length(key) = 32),
    -- ["id of a peer"]; NULL is every peer of the tenant.
    peers      TEXT,
    created_at INTEGER NOT NULL,
    UNIQUE (tenant, name)
) STRICT, WITHOUT ROWID;
