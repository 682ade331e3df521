-- The law as the database enforces it, whoever sends the statement. Applied again whenever it changes;
-- the functions status_row and status_alternates are generated from the status tables and come before it.

CREATE OR REPLACE FUNCTION clips_begin_at_the_beginning() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    first record;
BEGIN
    SELECT * INTO first FROM status_rows() AS r WHERE r.pipeline = NEW.pipeline ORDER BY r.ord LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown pipeline %', NEW.pipeline USING ERRCODE = 'check_violation', CONSTRAINT = 'unknown-pipeline';
    END IF;
    NEW.status := coalesce(NEW.status, first.status);
    NEW.progress := coalesce(NEW.progress, first.floor);
    IF NEW.status <> first.status OR NEW.progress <> first.floor OR NEW.attempt <> 1 THEN
        RAISE EXCEPTION 'a new clip starts at % with progress % in attempt 1', first.status, first.floor
            USING ERRCODE = 'check_violation', CONSTRAINT = 'starts-elsewhere';
    END IF;
    IF NEW.source_url IS NOT NULL THEN   -- whether there is one may be known; what it is may not
        NEW.processing_details := NEW.processing_details || '{"has_source_url": true}';
    END IF;
    NEW.pending := 0;
    NEW := take_request(NEW, '{}'::jsonb);
    INSERT INTO clip_events (clip_id, kind, attempt, to_status, progress, source, details)
    VALUES (NEW.id, 'created', 1, NEW.status, NEW.progress, coalesce(NEW.processing_details ->> 'created_by', 'api'), '{}');
    RETURN NEW;
END $$;

-- A request found in processing_details goes to the inbox; of several pending ones the document shows the highest.
CREATE OR REPLACE FUNCTION take_request(clip clips, before jsonb) RETURNS clips
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    doc jsonb := clip.processing_details;
    request jsonb := doc -> 'request';
    asked text := left(doc ->> 'requested_status', 100);
    asked_attempt integer;
BEGIN
    IF asked IS NULL
       OR (request IS NULL AND clip.pending > 0
           AND (doc -> 'requested_status') IS NOT DISTINCT FROM (before -> 'requested_status')
           AND (doc -> 'status_request_time') IS NOT DISTINCT FROM (before -> 'status_request_time')) THEN
        clip.processing_details := doc - 'request';
        RETURN clip;
    END IF;
    IF jsonb_typeof(request) IS DISTINCT FROM 'object' THEN
        request := '{}';
    END IF;
    asked_attempt := CASE WHEN request ->> 'attempt' ~ '^[0-9]{1,9}$' THEN (request ->> 'attempt')::integer ELSE clip.attempt END;
    INSERT INTO clip_signals (clip_id, attempt, requested_status, source, details, insists)
    VALUES (clip.id, asked_attempt, asked, left(coalesce(request ->> 'source', 'unknown'), 100),
            CASE jsonb_typeof(request -> 'details') WHEN 'object' THEN request -> 'details' ELSE '{}' END,
            coalesce(request -> 'insists' = 'true'::jsonb, false));
    clip.pending := clip.pending + 1;
    doc := doc - 'request' || jsonb_build_object('requested_attempt', asked_attempt,
        'status_request_time', coalesce(doc -> 'status_request_time', to_jsonb(clock_timestamp())));
    IF before ? 'requested_status' AND clip.pending > 1
       AND (coalesce((before ->> 'requested_attempt')::integer, clip.attempt), coalesce(status_order(clip.pipeline, before ->> 'requested_status'), 0))
         > (asked_attempt, coalesce(status_order(clip.pipeline, asked), 0)) THEN
        doc := doc || jsonb_build_object('requested_status', before -> 'requested_status',
            'requested_attempt', before -> 'requested_attempt', 'status_request_time', before -> 'status_request_time');
    END IF;
    clip.processing_details := doc;
    RETURN clip;
END $$;

CREATE OR REPLACE FUNCTION clips_obey_the_law() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    here record;
BEGIN
    IF (NEW.id, NEW.pipeline, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.pipeline, OLD.created_at) THEN
        RAISE EXCEPTION 'id, pipeline and created_at of a clip never change' USING ERRCODE = 'check_violation', CONSTRAINT = 'identity';
    END IF;
    IF NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'epoch % is over, the clip was written in %', NEW.epoch, OLD.epoch USING ERRCODE = 'check_violation', CONSTRAINT = 'stale-epoch';
    END IF;
    IF NEW.status <> OLD.status OR NEW.attempt <> OLD.attempt OR NEW.progress <> OLD.progress THEN
        IF NEW.attempt = OLD.attempt THEN
            IF NEW.status <> OLD.status AND NOT status_may_move(NEW.pipeline, OLD.status, NEW.status) THEN
                RAISE EXCEPTION 'a clip may not move from % to %', OLD.status, NEW.status USING ERRCODE = 'check_violation', CONSTRAINT = 'backward';
            END IF;
            IF NEW.progress < OLD.progress OR (NEW.status = 'error' AND NEW.progress <> OLD.progress) THEN
                RAISE EXCEPTION 'progress may not go from % to % at %', OLD.progress, NEW.progress, NEW.status
                    USING ERRCODE = 'check_violation', CONSTRAINT = 'progress-falls';
            END IF;
        ELSIF NEW.attempt <> OLD.attempt + 1 OR OLD.status <> 'error' OR NEW.status IN ('complete', 'error') THEN
            RAISE EXCEPTION 'attempt % cannot open at % while attempt % is at %', NEW.attempt, NEW.status, OLD.attempt, OLD.status
                USING ERRCODE = 'check_violation', CONSTRAINT = 'attempt';
        END IF;
        SELECT * INTO here FROM status_rows() AS r WHERE r.pipeline = NEW.pipeline AND r.status = NEW.status;
        IF NOT FOUND OR (NEW.status <> 'error' AND NEW.progress NOT BETWEEN here.floor AND here.ceiling) THEN
            RAISE EXCEPTION 'progress % does not belong to status %', NEW.progress, NEW.status
                USING ERRCODE = 'check_violation', CONSTRAINT = 'progress-span';
        END IF;
    END IF;
    IF NEW.processing_details IS DISTINCT FROM OLD.processing_details THEN
        NEW := take_request(NEW, OLD.processing_details);
    END IF;
    NEW.version := OLD.version + 1;
    NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at);
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER clips_begin_at_the_beginning BEFORE INSERT ON clips
    FOR EACH ROW EXECUTE FUNCTION clips_begin_at_the_beginning();
CREATE OR REPLACE TRIGGER clips_obey_the_law BEFORE UPDATE ON clips
    FOR EACH ROW EXECUTE FUNCTION clips_obey_the_law();
