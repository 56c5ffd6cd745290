-- Tokens that we hold and that are bound to a key of ours (DPoP, RFC 9449).

-- auto: where the server offers it; off; require.
ALTER TABLE ob_app ADD COLUMN dpop TEXT NOT NULL DEFAULT 'auto' CHECK (dpop IN ('auto', 'off', 'require'));

-- PKCS#8, sealed: the key of the proofs that tokens are asked for with.
ALTER TABLE handshake ADD COLUMN key_sealed BLOB;
ALTER TABLE held_token ADD COLUMN key_sealed BLOB;
-- Whether the access token is bound to that key; a refresh may bind the next one.
ALTER TABLE held_token ADD COLUMN bound INTEGER NOT NULL DEFAULT 0 CHECK (bound IN (0, 1));
