-- Who may call us, and what was allowed to them.

CREATE TABLE ib_app (
    id            BLOB PRIMARY KEY CHECK (length(id) = 16),
    tenant        TEXT NOT NULL REFERENCES tenant (name),
    name          TEXT NOT NULL,
    -- One name space for the whole instance.
    client_id     TEXT NOT NULL UNIQUE,
    -- JSON lists.
    redirect_uris TEXT NOT NULL,
    grants        TEXT NOT NULL,
    scope         TEXT NOT NULL,
    -- Milliseconds; NULL is the instance's.
    access_ttl    INTEGER,
    rotation      TEXT,
    native        INTEGER NOT NULL CHECK (native IN (0, 1)),
    created_at    INTEGER NOT NULL,
    UNIQUE (tenant, name)
) STRICT, WITHOUT ROWID;

-- A keyed hash of each secret; the newest has no end.
CREATE TABLE client_secret (
    id           BLOB PRIMARY KEY CHECK (length(id) = 16),
    app          BLOB NOT NULL REFERENCES ib_app (id) ON DELETE CASCADE,
    secret_hash  BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    purge_at     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX client_secret_app ON client_secret (app);
CREATE INDEX client_secret_purge ON client_secret (purge_at);

CREATE TABLE grant (
    id           BLOB PRIMARY KEY CHECK (length(id) = 16),
    app          BLOB NOT NULL REFERENCES ib_app (id) ON DELETE CASCADE,
    -- Who allowed it; NULL once that person was deleted.
    user         BLOB REFERENCES user (id) ON DELETE SET NULL,
    scope        TEXT NOT NULL,
    epoch        INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    ended_at     INTEGER,
    ended_why    TEXT,
    purge_at     INTEGER NOT NULL,
    CHECK ((ended_at IS NULL) = (ended_why IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX grant_app ON grant (app);
CREATE INDEX grant_user ON grant (user);
CREATE INDEX grant_purge ON grant (purge_at);

-- What somebody was asked to allow, from the question to the exchange of the code. A row that was exchanged stays as long as its grant:
-- it is how a code that comes a second time is known.
CREATE TABLE authorization (
    id           BLOB PRIMARY KEY CHECK (length(id) = 16),
    app          BLOB NOT NULL REFERENCES ib_app (id) ON DELETE CASCADE,
    user         BLOB NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    -- The browser session that was asked, and that alone may answer.
    session      BLOB NOT NULL CHECK (length(session) = 32),
    redirect_uri TEXT NOT NULL,
    -- What the client wants back with the answer, sealed: to the client it is a secret of the browser's.
    state_sealed BLOB,
    scope        TEXT NOT NULL,
    challenge    TEXT NOT NULL,
    epoch        INTEGER NOT NULL,
    stage        TEXT NOT NULL CHECK (stage IN ('pending', 'allowed', 'exchanged', 'declined', 'burnt')),
    -- Of the decision, then of the code.
    expires_at   INTEGER NOT NULL,
    code         BLOB UNIQUE CHECK (length(code) = 32),
    grant        BLOB REFERENCES grant (id) ON DELETE CASCADE,
    purge_at     INTEGER,
    CHECK ((stage IN ('allowed', 'exchanged', 'burnt')) = (code IS NOT NULL)),
    CHECK ((stage = 'exchanged') = (grant IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX authorization_app ON authorization (app);
CREATE INDEX authorization_user ON authorization (user);
CREATE INDEX authorization_session ON authorization (session);
CREATE INDEX authorization_grant ON authorization (grant);
CREATE INDEX authorization_purge ON authorization (purge_at);

-- Every refresh token that a grant ever had, for as long as the grant lives: what is retired is still known as ours.
CREATE TABLE refresh_token (
    digest         BLOB PRIMARY KEY CHECK (length(digest) = 32),
    grant          BLOB NOT NULL REFERENCES grant (id) ON DELETE CASCADE,
    generation     INTEGER NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('current', 'previous', 'retired', 'withdrawn')),
    -- Since when it is in that state.
    since_wall     INTEGER NOT NULL,
    since_boot     INTEGER NOT NULL,
    since_boot_id  INTEGER NOT NULL,
    -- From when its idle life counts.
    renewed_at     INTEGER NOT NULL,
    -- It or an access token that came with it was presented.
    used           INTEGER NOT NULL CHECK (used IN (0, 1)),
    remints        INTEGER NOT NULL,
    presented_from TEXT,
    -- The first answer to it, sealed under the token itself, while it may have to be given again.
    repeat_sealed  BLOB
) STRICT, WITHOUT ROWID;
-- No grant ever has two live branches.
CREATE UNIQUE INDEX refresh_token_current ON refresh_token (grant) WHERE state = 'current';
CREATE INDEX refresh_token_grant ON refresh_token (grant, state);
CREATE INDEX refresh_token_repeat ON refresh_token (since_wall) WHERE repeat_sealed IS NOT NULL;

CREATE TABLE access_token (
    digest     BLOB PRIMARY KEY CHECK (length(digest) = 32),
    grant      BLOB NOT NULL REFERENCES grant (id) ON DELETE CASCADE,
    -- Of the refresh token that it came with.
    generation INTEGER NOT NULL,
    scope      TEXT NOT NULL,
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Withdrawn before its time.
    ended      INTEGER NOT NULL CHECK (ended IN (0, 1)),
    purge_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX access_token_grant ON access_token (grant, generation);
CREATE INDEX access_token_purge ON access_token (purge_at);
