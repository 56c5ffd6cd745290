-- Grants that end together, very many of them perhaps: what a person allowed an app before the ending of that number is over from the moment
-- that it stands here, and is ended a little at a time. A mark of what is gone says nothing more, and goes when it is its turn.
CREATE TABLE ending (
    user   BLOB NOT NULL CHECK (length(user) = 16),
    app    BLOB NOT NULL CHECK (length(app) = 16),
    reason TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (user, app)
) STRICT, WITHOUT ROWID;
-- How many endings there were, and how many when the grant was made: no clock tells what came first.
ALTER TABLE meta ADD COLUMN endings INTEGER NOT NULL DEFAULT 0;
ALTER TABLE grant ADD COLUMN endings INTEGER NOT NULL DEFAULT 0;

-- Everybody may hold a role. One that is deleted is gone at once, and its name is free; its row stays without it until nobody holds it any more.
CREATE TABLE realm_role_with_end (
    id          BLOB PRIMARY KEY CHECK (length(id) = 16),
    realm       BLOB NOT NULL REFERENCES realm (app) ON DELETE CASCADE,
    name        TEXT,
    description TEXT NOT NULL,
    UNIQUE (realm, name)
) STRICT, WITHOUT ROWID;
INSERT INTO realm_role_with_end SELECT id, realm, name, description FROM realm_role;
-- What refers to it goes on referring to a table of that name.
DROP TABLE realm_role;
ALTER TABLE realm_role_with_end RENAME TO realm_role;
CREATE INDEX realm_role_gone ON realm_role (id) WHERE name IS NULL;

-- Questions and codes of a person that are on their way, which end with a sign-in.
CREATE INDEX authorization_under_way ON authorization (user, app) WHERE stage IN ('pending', 'allowed');
