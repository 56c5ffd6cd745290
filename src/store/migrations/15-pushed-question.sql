-- The question of somebody who may allow it: while that is there, what was pushed goes for nobody else's. Those that are being asked while this
-- step is taken have nine minutes left at most.
ALTER TABLE pushed_request ADD COLUMN question BLOB REFERENCES authorization (id) ON DELETE SET NULL;
DROP INDEX pushed_request_app;
CREATE INDEX pushed_request_app ON pushed_request (app, question, pushed_from, expires_at);
CREATE INDEX pushed_request_question ON pushed_request (question);
ALTER TABLE pushed_request DROP COLUMN opened;
