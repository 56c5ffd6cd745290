-- How OB apps authenticate, and the keys of those that sign.

-- client_secret_basic, client_secret_post, private_key_jwt or none; absent where it follows from what there is.
ALTER TABLE ob_app ADD COLUMN auth_method TEXT;
-- PKCS#8, sealed: what signs, and what takes over at next_key_from.
ALTER TABLE ob_app ADD COLUMN key_sealed BLOB;
ALTER TABLE ob_app ADD COLUMN next_key_sealed BLOB;
ALTER TABLE ob_app ADD COLUMN next_key_from INTEGER;

-- Whose revocation it is: while the OB app is there, its key of the time signs.
ALTER TABLE outbox ADD COLUMN ob_app BLOB CHECK (length(ob_app) = 16);
-- PKCS#8, sealed: what signs when the OB app is gone, and for whom.
ALTER TABLE outbox ADD COLUMN client_key_sealed BLOB;
ALTER TABLE outbox ADD COLUMN audience TEXT;
CREATE INDEX outbox_ob_app ON outbox (ob_app);
