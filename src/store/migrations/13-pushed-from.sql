-- The network that it was pushed from, where it is known: when an app has too many, those of the network with most of them go first.
ALTER TABLE pushed_request ADD COLUMN pushed_from TEXT;
-- Somebody who is signed in was asked it: from then on it goes for nobody else's.
ALTER TABLE pushed_request ADD COLUMN opened INTEGER NOT NULL DEFAULT 0 CHECK (opened IN (0, 1));
DROP INDEX pushed_request_app;
CREATE INDEX pushed_request_app ON pushed_request (app, opened, pushed_from, expires_at);
