-- Who did what to which record, from where. Rows are added and never changed; the oldest go once they have been kept for their time.
CREATE TABLE audit (
    -- Ascending without gaps: a number that is missing was taken away.
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    action      TEXT NOT NULL,
    outcome     TEXT NOT NULL CHECK (outcome IN ('done', 'refused', 'failed')),
    actor_kind  TEXT NOT NULL,
    actor       TEXT NOT NULL,
    record_kind TEXT,
    record_id   TEXT,
    record_name TEXT,
    tenant      TEXT,
    address     TEXT,
    request_id  TEXT,
    -- An object; fingerprints of tokens, never values.
    details     TEXT NOT NULL CHECK (length(details) <= 8192)
) STRICT;
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_action ON audit (action);
CREATE INDEX audit_actor ON audit (actor);
CREATE INDEX audit_record_id ON audit (record_id);
CREATE INDEX audit_record_name ON audit (record_name);
CREATE INDEX audit_tenant ON audit (tenant);

-- Before when rows may be deleted. Only the purge moves it, forward, and leaves a row that says so.
CREATE TABLE audit_horizon (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    at  INTEGER NOT NULL
) STRICT;
INSERT INTO audit_horizon (one, at) VALUES (1, 0);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit WHEN OLD.at >= (SELECT at FROM audit_horizon)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: this row has not been kept for its time'); END;
-- INSERT OR REPLACE deletes without asking the trigger above. An id that is not given is -1 here.
CREATE TRIGGER audit_goes_on BEFORE INSERT ON audit WHEN NEW.id >= 0 AND NEW.id <= (SELECT coalesce(max(id), 0) FROM audit)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only: this id is taken or past'); END;
CREATE TRIGGER audit_horizon_is_not_lost BEFORE DELETE ON audit_horizon
BEGIN SELECT RAISE(ABORT, 'the audit has a horizon'); END;
CREATE TRIGGER audit_horizon_moves_forward BEFORE UPDATE ON audit_horizon WHEN NEW.at < OLD.at OR NEW.one <> OLD.one
BEGIN SELECT RAISE(ABORT, 'the horizon of the audit moves forward'); END;
CREATE TRIGGER audit_horizon_is_one BEFORE INSERT ON audit_horizon WHEN EXISTS (SELECT 1 FROM audit_horizon)
BEGIN SELECT RAISE(ABORT, 'the audit has one horizon'); END;
