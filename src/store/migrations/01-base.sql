-- What the database is, who may rule it, and who is signed in.

CREATE TABLE meta (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    epoch     INTEGER NOT NULL,
    made_at   INTEGER NOT NULL,
    -- Set in the copy that a backup makes, cleared when that copy is opened as a database: then a new epoch begins.
    copied_at INTEGER
) STRICT;

-- The state keys that this database has seen, without the keys: `proof` is a MAC under the key, so that another key of the same name is noticed.
CREATE TABLE state_key (
    id       BLOB PRIMARY KEY CHECK (length(id) = 4),
    proof    BLOB NOT NULL CHECK (length(proof) = 32),
    added_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A tenant's id is its name; it cannot be deleted while a record refers to it.
CREATE TABLE tenant (
    name       TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE user (
    id          BLOB PRIMARY KEY CHECK (length(id) = 16),
    login       TEXT NOT NULL UNIQUE,
    -- argon2id, as a PHC string.
    password    TEXT,
    -- Rules the whole instance.
    admin       INTEGER NOT NULL CHECK (admin IN (0, 1)),
    -- {"tenant": ["permission"]}
    permissions TEXT NOT NULL,
    api_key     BLOB UNIQUE CHECK (length(api_key) = 32),
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A browser in which somebody is signed in. The cookie's value is not here, only its digest.
CREATE TABLE session (
    digest       BLOB PRIMARY KEY CHECK (length(digest) = 32),
    user         BLOB NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    epoch        INTEGER NOT NULL,
    signed_in_at INTEGER NOT NULL,
    purge_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_user ON session (user);
CREATE INDEX session_purge ON session (purge_at);
