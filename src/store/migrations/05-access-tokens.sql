-- Access tokens were forgotten a day after their end. Whoever revokes one that a grant ever issued ends the grant, so
-- their digests live as long as it, as those of its refresh tokens do.
DROP INDEX access_token_purge;
ALTER TABLE access_token DROP COLUMN purge_at;
-- Of all that a grant ever had, those that were not ended are found without a look at the others.
DROP INDEX access_token_grant;
CREATE INDEX access_token_grant ON access_token (grant, ended, generation);
