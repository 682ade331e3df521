-- Clips, their history, the inbox of signals and the monitor's lease.
-- Goes before the code.

CREATE TABLE clips (
    id                  text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    pipeline            text NOT NULL DEFAULT 'stream',
    cloudflare_uid      text UNIQUE CHECK (cloudflare_uid ~ '^[A-Za-z0-9_-]{1,64}$'),
    title               text CHECK (char_length(title) <= 500),
    -- Filled by the trigger on insert: a new clip starts where its pipeline starts.
    status              text NOT NULL,
    progress            numeric(5, 2) NOT NULL CHECK (progress BETWEEN 0 AND 100),
    processing_details  jsonb NOT NULL DEFAULT '{}',
    attempt             integer NOT NULL DEFAULT 1 CHECK (attempt >= 1),
    duration            double precision,                                   -- seconds
    file_size           bigint,                                             -- bytes
    thumbnail_url       text,
    hls_url             text,
    dash_url            text,
    mp4_url             text,
    r2_url              text,
    error_message       text,
    uploaded_at         timestamptz,
    completed_at        timestamptz,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at          timestamptz NOT NULL DEFAULT clock_timestamp(),

    -- Where the provider is to fetch the clip from. It may carry its owner's signature, so the API role
    -- may write it and never read it; it is wiped when the clip ends.
    source_url          text CHECK (char_length(source_url) <= 4096),
    upload_expires_at   timestamptz,
    status_since        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the monitor looks next. The last check below makes "nothing is ever stranded" a property of the row.
    look_at             timestamptz DEFAULT clock_timestamp(),
    tries               integer NOT NULL DEFAULT 0,                         -- failed tries at this status
    pending             integer NOT NULL DEFAULT 0,                         -- signals not judged yet
    epoch               bigint NOT NULL DEFAULT 0,                          -- of the monitor that wrote last
    version             bigint NOT NULL DEFAULT 1,                          -- rises with every change

    CONSTRAINT processing_details_is_an_object CHECK (jsonb_typeof(processing_details) = 'object'),
    -- 64 KiB holds some hundreds of details of one clip; a larger document is a mistake or an attack.
    CONSTRAINT processing_details_is_bounded CHECK (pg_column_size(processing_details) <= 65536),
    -- A thousand signals waiting for one clip are a flood, not a pipeline.
    CONSTRAINT pending_signals_are_bounded CHECK (pending BETWEEN 0 AND 1000),
    CONSTRAINT unfinished_clips_are_looked_at CHECK (status IN ('complete', 'error') OR look_at IS NOT NULL)
) WITH (fillfactor = 70);                                                   -- room for HOT updates beside the row

-- The only clips a round has to find; ended ones are not in it, however many there are.
CREATE INDEX clips_due ON clips (look_at) WHERE look_at IS NOT NULL;

CREATE TABLE clip_events (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    clip_id      text NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind         text NOT NULL,
    attempt      integer NOT NULL,
    from_status  text,
    to_status    text,
    progress     numeric(5, 2),
    source       text NOT NULL,
    details      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX clip_events_of_clip ON clip_events (clip_id, id);

-- What was asked and not judged yet. The trigger on clips fills it from processing_details, so that a
-- second request never overwrites a first; the engine's own steps write to it directly.
CREATE TABLE clip_signals (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    clip_id           text NOT NULL,
    attempt           integer NOT NULL,
    requested_status  text NOT NULL,
    source            text NOT NULL,
    details           jsonb NOT NULL DEFAULT '{}',
    observed          boolean NOT NULL DEFAULT false,   -- its author has seen the fact: the engine's steps alone
    insists           boolean NOT NULL DEFAULT false,   -- a person, or a check that found the object gone
    hearsay           boolean NOT NULL DEFAULT false,   -- heard from another service: looked into, then believed
    at                timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX clip_signals_of_clip ON clip_signals (clip_id, id);

CREATE TABLE monitor_lease (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    holder      text,
    epoch       bigint NOT NULL DEFAULT 0,
    taken_at    timestamptz,
    expires_at  timestamptz NOT NULL DEFAULT '-infinity',
    round_at    timestamptz                             -- when the last round ended: readiness tells its age
);
INSERT INTO monitor_lease DEFAULT VALUES;

-- History is written once.
CREATE FUNCTION clip_events_are_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'history is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER clip_events_are_final BEFORE UPDATE ON clip_events
    FOR EACH ROW EXECUTE FUNCTION clip_events_are_final();
