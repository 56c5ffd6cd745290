-- What nobody ended, of an app and of a person, in the order in which it was allowed, with what else says whether it is active: a list reads
-- what it shows, however much is over.
CREATE INDEX grant_app_live ON grant (app, id, epoch, expires_at, ended_at) WHERE ended_at IS NULL;
CREATE INDEX grant_user_live ON grant (user, id, epoch, expires_at, ended_at) WHERE ended_at IS NULL;
