-- Whom we call, with which credentials, and how a link to them is made.

CREATE TABLE ob_app (
    id                   BLOB PRIMARY KEY CHECK (length(id) = 16),
    tenant               TEXT NOT NULL REFERENCES tenant (name),
    name                 TEXT NOT NULL,
    client_id            TEXT NOT NULL,
    -- Sealed; a public client has none.
    client_secret_sealed BLOB,
    grant_type           TEXT NOT NULL,
    scope                TEXT NOT NULL,
    -- Either the issuer, whose metadata names the endpoints, or the endpoints.
    issuer               TEXT,
    authorize_url        TEXT,
    token_url            TEXT,
    -- PEM.
    ca                   TEXT,
    -- Somebody gave the URLs who does not rule the instance: they may not lead into a private network.
    guarded              INTEGER NOT NULL CHECK (guarded IN (0, 1)),
    created_at           INTEGER NOT NULL,
    UNIQUE (tenant, name),
    CHECK ((issuer IS NULL) <> (token_url IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE peer (
    id                BLOB PRIMARY KEY CHECK (length(id) = 16),
    tenant            TEXT NOT NULL REFERENCES tenant (name),
    name              TEXT NOT NULL,
    url               TEXT NOT NULL,
    base_url          TEXT,
    auth              TEXT NOT NULL CHECK (auth IN ('oauth', 'basic', 'none')),
    ob_app            BLOB REFERENCES ob_app (id),
    user_name         TEXT,
    -- Sealed.
    password_sealed   BLOB,
    -- PEM, and 64 hexadecimal digits.
    ca                TEXT,
    pin               TEXT,
    -- Somebody gave the URLs who does not rule the instance: they may not lead into a private network.
    guarded           INTEGER NOT NULL CHECK (guarded IN (0, 1)),
    maintenance_since INTEGER,
    maintenance_until INTEGER,
    created_at        INTEGER NOT NULL,
    -- Raised by everything that changes which tokens are the right ones.
    generation        INTEGER NOT NULL,
    unlinked_at       INTEGER,
    -- What its server last said of itself, checked: a refresh needs it while the server cannot be asked.
    metadata          TEXT,
    UNIQUE (tenant, name),
    CHECK ((auth = 'oauth') = (ob_app IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX peer_ob_app ON peer (ob_app);

-- What a link rests on, and the intent of a refresh that is not settled.
CREATE TABLE held_token (
    peer               BLOB PRIMARY KEY REFERENCES peer (id) ON DELETE CASCADE,
    -- In which life of the database it was obtained.
    epoch              INTEGER NOT NULL,
    -- Sealed.
    access_sealed      BLOB NOT NULL,
    refresh_sealed     BLOB,
    requested_wall     INTEGER NOT NULL,
    requested_boot     INTEGER NOT NULL,
    requested_boot_id  INTEGER NOT NULL,
    life               INTEGER NOT NULL,
    refresh_expires_at INTEGER,
    scope              TEXT NOT NULL,
    linked_as          TEXT,
    linked_at          INTEGER NOT NULL,
    well_since         INTEGER NOT NULL,
    -- Attempts whose request may have left, and whether one that was not the first was refused.
    attempts           INTEGER NOT NULL,
    refused            INTEGER NOT NULL CHECK (refused IN (0, 1)),
    trouble            TEXT,
    trouble_reason     TEXT,
    trouble_since      INTEGER
) STRICT, WITHOUT ROWID;

-- Links that the peer ended.
CREATE TABLE broken_link (
    peer  BLOB PRIMARY KEY REFERENCES peer (id) ON DELETE CASCADE,
    since INTEGER NOT NULL,
    why   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Request URLs. The ticket is not here, only its digest.
CREATE TABLE ticket (
    digest     BLOB PRIMARY KEY CHECK (length(digest) = 32),
    peer       BLOB NOT NULL REFERENCES peer (id) ON DELETE CASCADE,
    epoch      INTEGER NOT NULL,
    made_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    login      INTEGER NOT NULL CHECK (login IN (0, 1)),
    replaced   INTEGER NOT NULL CHECK (replaced IN (0, 1)),
    handshake  BLOB CHECK (length(handshake) = 16),
    purge_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ticket_peer ON ticket (peer, made_at);
CREATE INDEX ticket_purge ON ticket (purge_at);

CREATE TABLE handshake (
    id              BLOB PRIMARY KEY CHECK (length(id) = 16),
    peer            BLOB NOT NULL REFERENCES peer (id) ON DELETE CASCADE,
    ticket          BLOB NOT NULL,
    epoch           INTEGER NOT NULL,
    browser         BLOB NOT NULL CHECK (length(browser) = 32),
    state           BLOB NOT NULL UNIQUE CHECK (length(state) = 32),
    -- What the browser was sent with: issuer, endpoints, redirect URI, scope.
    sent            TEXT NOT NULL,
    expires_at      INTEGER NOT NULL,
    stage           TEXT NOT NULL CHECK (stage IN ('pressed', 'exchanging', 'linked', 'declined', 'failed', 'replaced')),
    -- PKCE's secret, sealed; while the browser is at the peer.
    verifier_sealed BLOB,
    -- When it came to this stage, and in words what there is to say of it.
    stage_at        INTEGER,
    detail          TEXT,
    purge_at        INTEGER NOT NULL,
    CHECK ((stage = 'pressed') = (verifier_sealed IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX handshake_peer ON handshake (peer);
CREATE INDEX handshake_purge ON handshake (purge_at);

-- Tokens that have to be revoked at a peer, with all that it takes: peer and OB app may be gone by then.
CREATE TABLE outbox (
    id                   BLOB PRIMARY KEY CHECK (length(id) = 16),
    tenant               TEXT NOT NULL,
    peer                 TEXT NOT NULL,
    -- Sealed.
    token_sealed         BLOB NOT NULL,
    hint                 TEXT NOT NULL CHECK (hint IN ('access_token', 'refresh_token')),
    endpoint             TEXT NOT NULL,
    -- The endpoint was learnt from a document and may not lead into a private network.
    guarded              INTEGER NOT NULL CHECK (guarded IN (0, 1)),
    client_id            TEXT NOT NULL,
    -- Sealed.
    client_secret_sealed BLOB,
    secret_in_form       INTEGER NOT NULL CHECK (secret_in_form IN (0, 1)),
    ca                   TEXT,
    pin                  TEXT,
    attempts             INTEGER NOT NULL,
    next_at              INTEGER NOT NULL,
    purge_at             INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_next ON outbox (next_at);
CREATE INDEX outbox_purge ON outbox (purge_at);
