-- When the epoch began; NULL for the one that the database was made with. What is remembered of earlier ones may be incomplete.
ALTER TABLE meta ADD COLUMN begun_at INTEGER;
