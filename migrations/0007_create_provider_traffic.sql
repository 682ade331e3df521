-- What passed between the provider and us, for people who look into one clip: notifications that came, calls that were
-- made. Nothing decides by it, and what is lost of it is missed by nobody but them.
-- Before the code: the web process notes notifications, every process its calls.

-- Notifications that were really signed with our secret, in time or too late; one row however often the same one came.
CREATE TABLE webhook_deliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    clip_id         text NOT NULL,
    cloudflare_uid  text NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    times           integer NOT NULL DEFAULT 1 CHECK (times >= 1),
    signature       text NOT NULL CHECK (signature IN ('valid', 'stale')),
    state           text CHECK (char_length(state) <= 100),
    outcome         text NOT NULL CHECK (outcome IN ('recorded', 'ignored', 'refused')),
    size_bytes      integer NOT NULL CHECK (size_bytes >= 0),
    body_sha256     bytea NOT NULL CHECK (octet_length(body_sha256) = 32),
    -- Without what may open something: addresses are cut to their host. A large one is cut to the fields that count.
    body            text NOT NULL CHECK (octet_length(body) <= 16384),
    UNIQUE (clip_id, body_sha256, signature)
);
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (last_at);

-- Whatever strangers can send without end is counted, never kept: one row an hour and reason.
CREATE TABLE webhook_refusals (
    hour     timestamptz NOT NULL,
    reason   text NOT NULL CHECK (char_length(reason) <= 40),
    times    bigint NOT NULL,
    last_at  timestamptz NOT NULL,
    PRIMARY KEY (hour, reason)
);

-- Calls to the provider about one video. Unlogged: a crash of the database empties it, and nothing else waits for it.
CREATE UNLOGGED TABLE provider_calls (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cloudflare_uid  text NOT NULL,
    at              timestamptz NOT NULL,
    operation       text NOT NULL CHECK (char_length(operation) <= 40),
    call_class      text NOT NULL CHECK (char_length(call_class) <= 20),
    try             integer NOT NULL,                           -- of this call, from 1
    waited_ms       integer NOT NULL,                           -- for a place in the call budget
    took_ms         integer NOT NULL,
    http_status     integer,                                    -- null: no answer came
    problem         text CHECK (char_length(problem) <= 60)     -- the code of what was wrong with it
);
CREATE INDEX provider_calls_of_video ON provider_calls (cloudflare_uid, id);
