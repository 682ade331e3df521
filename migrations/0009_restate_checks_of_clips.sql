-- The checks of a clip's ids, said so that they cost a fifteenth: a pattern with {1,64} in it takes PostgreSQL 12 µs for
-- each value, and both are looked at with every change of a clip, whatever it changes (docs/decisions/0013).
-- Before or after the code. They say the same as before, so no row need be looked at again: NOT VALID keeps the lock to
-- a moment, however large the table; new and changed rows are checked all the same.

ALTER TABLE clips
    DROP CONSTRAINT clips_id_check,
    DROP CONSTRAINT clips_cloudflare_uid_check,
    ADD CONSTRAINT clips_id_check
        CHECK (char_length(id) BETWEEN 1 AND 64 AND id ~ '^[A-Za-z0-9_-]+$') NOT VALID,
    ADD CONSTRAINT clips_cloudflare_uid_check
        CHECK (char_length(cloudflare_uid) BETWEEN 1 AND 64 AND cloudflare_uid ~ '^[A-Za-z0-9_-]+$') NOT VALID;
