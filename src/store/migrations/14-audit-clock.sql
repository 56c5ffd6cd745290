-- When the wall clock was last believed, so that one that is far from there deletes no row of the audit for its age; and of one that is
-- doubted, where it was last seen, and how many milliseconds of boot time it was to go on from there until it is believed.
ALTER TABLE audit_horizon ADD COLUMN believed_wall INTEGER;
ALTER TABLE audit_horizon ADD COLUMN believed_boot INTEGER;
ALTER TABLE audit_horizon ADD COLUMN believed_boot_id INTEGER;
ALTER TABLE audit_horizon ADD COLUMN doubted_wall INTEGER;
ALTER TABLE audit_horizon ADD COLUMN doubted_boot INTEGER;
ALTER TABLE audit_horizon ADD COLUMN doubted_boot_id INTEGER;
ALTER TABLE audit_horizon ADD COLUMN doubt_left INTEGER;
-- A database from before knows the clock of its newest row, of a boot that is none.
UPDATE audit_horizon SET believed_wall = newest.at, believed_boot = 0, believed_boot_id = 0
    FROM (SELECT at FROM audit ORDER BY id DESC LIMIT 1) AS newest;
