-- How IB apps authenticate, what their tokens are bound to, and what they ask for before a browser is involved.

-- An object of settings; what is absent is the default.
ALTER TABLE ib_app ADD COLUMN security TEXT NOT NULL DEFAULT '{}';

-- The key that must be shown with every token of the grant, or with this one: 'jkt:' or 'x5t#S256:' and a thumbprint.
ALTER TABLE grant ADD COLUMN binding TEXT;
ALTER TABLE access_token ADD COLUMN binding TEXT;

-- Whether the request named its redirect URI, which then has to be repeated where no challenge binds the code. An empty challenge is none.
ALTER TABLE authorization ADD COLUMN names_redirect_uri INTEGER NOT NULL DEFAULT 1 CHECK (names_redirect_uri IN (0, 1));
-- The DPoP key that the code is bound to.
ALTER TABLE authorization ADD COLUMN dpop_key TEXT;
-- The pushed request that was asked, which is decided once.
ALTER TABLE authorization ADD COLUMN pushed BLOB CHECK (length(pushed) = 32);

-- Access tokens of apps that act for themselves: there is no grant that they could end with.
CREATE TABLE app_token (
    digest     BLOB PRIMARY KEY CHECK (length(digest) = 32),
    app        BLOB NOT NULL REFERENCES ib_app (id) ON DELETE CASCADE,
    scope      TEXT NOT NULL,
    binding    TEXT,
    epoch      INTEGER NOT NULL,
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Revoked.
    ended      INTEGER NOT NULL CHECK (ended IN (0, 1)),
    purge_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX app_token_app ON app_token (app, expires_at);
CREATE INDEX app_token_purge ON app_token (purge_at);

-- What may be presented once: client assertions, for as long as they would be believed.
CREATE TABLE used_once (
    digest   BLOB PRIMARY KEY CHECK (length(digest) = 32),
    purge_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX used_once_purge ON used_once (purge_at);

-- Authorization requests that apps handed in themselves, by the digest of their reference.
CREATE TABLE pushed_request (
    digest   BLOB PRIMARY KEY CHECK (length(digest) = 32),
    app      BLOB NOT NULL REFERENCES ib_app (id) ON DELETE CASCADE,
    -- The parameters as a query, sealed: the state among them is a secret of the browser's.
    parameters_sealed BLOB NOT NULL,
    -- Of the DPoP proof that it came with.
    dpop_key TEXT,
    epoch    INTEGER NOT NULL,
    -- Somebody has answered it.
    decided  INTEGER NOT NULL CHECK (decided IN (0, 1)),
    expires_at INTEGER NOT NULL,
    purge_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX pushed_request_app ON pushed_request (app, expires_at);
CREATE INDEX pushed_request_purge ON pushed_request (purge_at);
