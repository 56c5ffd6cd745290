-- Realms: IB apps that sign people in, by the roles that these hold there.

CREATE TABLE realm (
    app         BLOB PRIMARY KEY REFERENCES ib_app (id) ON DELETE CASCADE,
    description TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE realm_role (
    id          BLOB PRIMARY KEY CHECK (length(id) = 16),
    realm       BLOB NOT NULL REFERENCES realm (app) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    UNIQUE (realm, name)
) STRICT, WITHOUT ROWID;

-- Who holds which role.
CREATE TABLE realm_member (
    role BLOB NOT NULL REFERENCES realm_role (id) ON DELETE CASCADE,
    user BLOB NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    PRIMARY KEY (role, user)
) STRICT, WITHOUT ROWID;
CREATE INDEX realm_member_user ON realm_member (user);

-- What made it: somebody's consent in a browser, or a password that a realm's application handed in.
ALTER TABLE grant ADD COLUMN made_by TEXT NOT NULL DEFAULT 'consent' CHECK (made_by IN ('consent', 'password'));
