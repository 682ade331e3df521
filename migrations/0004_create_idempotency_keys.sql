-- Answers to calls that carried an Idempotency-Key, so that a repeated call gets the same answer and makes nothing.
-- Goes before the code.

CREATE TABLE idempotency_keys (
    -- Hashes: of who called, and of the key as it was sent. The key itself opens the answer and is not kept.
    scope        text NOT NULL,
    key_sha256   bytea NOT NULL,
    -- Of method, path and body: the same key with another call is a mistake.
    call_sha256  bytea NOT NULL,
    claimed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Null while the first call is being answered. An answer may hold an upload address, so it is sealed.
    status       integer,
    answer       bytea CHECK (octet_length(answer) <= 65536),
    PRIMARY KEY (scope, key_sha256)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (claimed_at);
