-- Where a transfer into the bucket stands, so that a crash costs at most one part.
-- Before the code: the monitor writes here after each part.
--
-- No reference to clips: a checkpoint may outlive its row by the minutes until its upload is aborted.

CREATE TABLE transfers (
    clip_id               text NOT NULL,
    attempt               integer NOT NULL CHECK (attempt >= 1),
    object_key            text NOT NULL CHECK (char_length(object_key) BETWEEN 1 AND 1024),
    upload_id             text NOT NULL CHECK (char_length(upload_id) BETWEEN 1 AND 2048),
    part_size_bytes       bigint NOT NULL CHECK (part_size_bytes > 0),
    -- What the source was when the copy began; null where the source does not say.
    source_size_bytes     bigint CHECK (source_size_bytes > 0),
    source_etag           text,
    source_last_modified  text,
    started_at            timestamptz NOT NULL DEFAULT now(),
    -- Set together, once the object has been verified.
    finished_at           timestamptz,
    stored_size_bytes     bigint,
    stored_etag           text,
    PRIMARY KEY (clip_id, attempt),
    CHECK (num_nulls(finished_at, stored_size_bytes, stored_etag) IN (0, 3))
);

-- The sweep asks which unfinished uploads are somebody's; there are never many of them.
CREATE INDEX transfers_unfinished ON transfers (clip_id, attempt) WHERE finished_at IS NULL;

-- Parts that are durable in the bucket; they go when the transfer is finished or given up.
CREATE TABLE transfer_parts (
    clip_id     text NOT NULL,
    attempt     integer NOT NULL,
    number      integer NOT NULL CHECK (number BETWEEN 1 AND 10000),
    etag        text NOT NULL CHECK (etag ~ '^[0-9a-f]{32}$'),
    size_bytes  bigint NOT NULL CHECK (size_bytes > 0),
    PRIMARY KEY (clip_id, attempt, number),
    FOREIGN KEY (clip_id, attempt) REFERENCES transfers ON DELETE CASCADE
);
