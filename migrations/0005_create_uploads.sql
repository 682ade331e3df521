-- Files that were sent to this program to be cut, and the clips that were made of them.
-- Before the code: the web process stores uploads, the monitor notes artifacts.

CREATE TABLE uploads (
    id           text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    filename     text CHECK (char_length(filename) <= 255),            -- the uploader's name for it: data, never a path
    size_bytes   bigint NOT NULL CHECK (size_bytes >= 0),
    sha256       text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),      -- tells the same bytes from others
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at      timestamptz NOT NULL DEFAULT clock_timestamp()        -- when a job last asked for it: the sweep goes by it
);
CREATE INDEX uploads_by_use ON uploads (used_at);

CREATE TABLE artifacts (
    clip_id           text NOT NULL,
    number            integer NOT NULL CHECK (number >= 1),
    name              text NOT NULL CHECK (name ~ '^clip_[0-9]{3,}\.mp4$'),
    start_seconds     double precision NOT NULL,
    end_seconds       double precision NOT NULL,
    duration_seconds  double precision NOT NULL,
    size_bytes        bigint NOT NULL CHECK (size_bytes > 0),
    width             integer NOT NULL,
    height            integer NOT NULL,
    has_sound         boolean NOT NULL,
    published_as      text,                                            -- the clip that carries it on in another pipeline
    PRIMARY KEY (clip_id, number)
);
