-- What the provider was asked to make, noted before it is asked: who finds no note knows that nobody has asked yet.
-- Before the code. Clips under way may have asked without a note, so they are given one; each costs a look at most.

CREATE TABLE provider_asks (
    clip_id   text NOT NULL,
    what      text NOT NULL CHECK (char_length(what) <= 100),
    asked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (clip_id, what)
);
-- Notes are dropped by age.
CREATE INDEX provider_asks_by_age ON provider_asks (asked_at);

INSERT INTO provider_asks (clip_id, what)
SELECT id, 'copy ' || attempt FROM clips WHERE look_at IS NOT NULL AND pipeline = 'stream'
UNION ALL
SELECT id, 'mp4 ' || cloudflare_uid FROM clips
 WHERE look_at IS NOT NULL AND pipeline = 'stream' AND cloudflare_uid IS NOT NULL;
