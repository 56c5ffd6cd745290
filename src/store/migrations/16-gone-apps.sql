-- An app that is deleted may have a million tokens. It is gone at once, name and client_id are free; its row stays without them until the
-- purge has taken all that hangs on it, a little at a time. What belongs to no tenant is found by nobody.
CREATE TABLE ib_app_with_end (
    id            BLOB PRIMARY KEY CHECK (length(id) = 16),
    tenant        TEXT REFERENCES tenant (name),
    name          TEXT,
    -- One name space for the whole instance.
    client_id     TEXT UNIQUE,
    -- JSON lists.
    redirect_uris TEXT NOT NULL,
    grants        TEXT NOT NULL,
    scope         TEXT NOT NULL,
    -- Milliseconds; NULL is the instance's.
    access_ttl    INTEGER,
    rotation      TEXT,
    native        INTEGER NOT NULL CHECK (native IN (0, 1)),
    created_at    INTEGER NOT NULL,
    -- An object of settings; what is absent is the default.
    security      TEXT NOT NULL DEFAULT '{}',
    -- When it was deleted.
    purge_at      INTEGER,
    UNIQUE (tenant, name),
    CHECK ((purge_at IS NULL) = (tenant IS NOT NULL)),
    CHECK ((purge_at IS NULL) = (name IS NOT NULL)),
    CHECK ((purge_at IS NULL) = (client_id IS NOT NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO ib_app_with_end
    SELECT id, tenant, name, client_id, redirect_uris, grants, scope, access_ttl, rotation, native, created_at, security, NULL FROM ib_app;
-- What refers to it goes on referring to a table of that name.
DROP TABLE ib_app;
ALTER TABLE ib_app_with_end RENAME TO ib_app;
CREATE INDEX ib_app_purge ON ib_app (purge_at);

-- An id is given by the table: what is negative would be past every row that counts, and could be replaced.
CREATE TRIGGER audit_counts_from_one AFTER INSERT ON audit WHEN NEW.id < 1
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: its rows count from one'); END;
-- No row is older than what has not happened yet.
CREATE TRIGGER audit_horizon_is_past BEFORE UPDATE ON audit_horizon
WHEN NEW.at > OLD.at AND NEW.at > (SELECT coalesce(max(at), 0) FROM audit)
BEGIN SELECT RAISE(ABORT, 'the horizon of the audit lies in the past'); END;
