-- What a person allowed, by app and in the order in which it was allowed: of the apps of one tenant a list reads what it shows, however much
-- the person allowed elsewhere.
DROP INDEX grant_user;
CREATE INDEX grant_user_app ON grant (user, app, id);
CREATE INDEX grant_user_app_live ON grant (user, app, id, epoch, expires_at, ended_at) WHERE ended_at IS NULL;
