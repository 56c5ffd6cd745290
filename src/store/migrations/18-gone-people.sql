-- A person may have allowed a hundred thousand grants, which stay without who allowed them. As with an app, who is deleted is gone at once,
-- and the row stays without a login until the purge has taken it from all that names it, a little at a time.
CREATE TABLE user_with_end (
    id          BLOB PRIMARY KEY CHECK (length(id) = 16),
    login       TEXT UNIQUE,
    -- argon2id, as a PHC string.
    password    TEXT,
    -- Rules the whole instance.
    admin       INTEGER NOT NULL CHECK (admin IN (0, 1)),
    -- {"tenant": ["permission"]}
    permissions TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    -- When it was deleted.
    purge_at    INTEGER,
    CHECK ((purge_at IS NULL) = (login IS NOT NULL)),
    CHECK (purge_at IS NULL OR password IS NULL AND admin = 0 AND permissions = '{}')
) STRICT, WITHOUT ROWID;
INSERT INTO user_with_end SELECT id, login, password, admin, permissions, created_at, NULL FROM user;
DROP TABLE user;
ALTER TABLE user_with_end RENAME TO user;
CREATE INDEX user_purge ON user (purge_at);
