-- Of the grants that nobody ended: those whose time is over, and those that nobody may have renewed for too long.
CREATE INDEX grant_live_end ON grant (expires_at) WHERE ended_at IS NULL AND expires_at IS NOT NULL;
CREATE INDEX grant_live_purge ON grant (purge_at) WHERE ended_at IS NULL;
