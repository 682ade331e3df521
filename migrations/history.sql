-- What of the history may go, whoever asks. Applied again with the law.

-- History is written once, and what is pruned of it is old and of a clip that has ended. How each attempt ended, and why,
-- is never pruned. A week is the least that is kept: what went wrong on a Friday can still be looked into.
CREATE OR REPLACE FUNCTION clip_events_are_kept() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    stands text;
BEGIN
    SELECT c.status INTO stands FROM clips AS c WHERE c.id = OLD.clip_id;
    IF NOT FOUND THEN
        RETURN OLD;   -- the clip itself is gone, and with it whom its history would be of use to
    END IF;
    IF stands NOT IN ('complete', 'error') THEN
        RAISE EXCEPTION 'the history of a clip on its way is kept' USING ERRCODE = 'check_violation', CONSTRAINT = 'history-in-use';
    END IF;
    IF OLD.at > clock_timestamp() - interval '7 days' THEN
        RAISE EXCEPTION 'history is kept for seven days at least' USING ERRCODE = 'check_violation', CONSTRAINT = 'history-is-young';
    END IF;
    IF OLD.kind = 'moved' AND OLD.to_status IN ('complete', 'error') THEN
        RAISE EXCEPTION 'how an attempt ended is kept' USING ERRCODE = 'check_violation', CONSTRAINT = 'history-of-an-end';
    END IF;
    RETURN OLD;
END $$;

CREATE OR REPLACE TRIGGER clip_events_are_kept BEFORE DELETE ON clip_events
    FOR EACH ROW EXECUTE FUNCTION clip_events_are_kept();
