-- The law as the database enforces it, whoever sends the statement. Applied again whenever it changes;
-- the functions status_rows, status_order, status_may_move and status_holds are generated from the status tables and
-- come before it.

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
    PERFORM check_document(NEW.processing_details, true);
    NEW.pending := 0;
    NEW.processing_details := without_request(NEW.processing_details);
    IF NEW.processing_details ->> 'requested_status' IS NOT NULL THEN
        NEW.pending := 1;
        NEW.processing_details := NEW.processing_details || jsonb_build_object('requested_attempt', 1,
            'status_request_time', coalesce(NEW.processing_details -> 'status_request_time', to_jsonb(clock_timestamp())));
    END IF;
    RETURN NEW;
END $$;

-- Only once the row is there: an insert that gives way to a conflict has made nothing.
CREATE OR REPLACE FUNCTION clips_are_announced() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    author text := left(coalesce(NEW.processing_details ->> 'created_by', 'api'), 100);
BEGIN
    INSERT INTO clip_events (clip_id, kind, attempt, to_status, progress, source)
    VALUES (NEW.id, 'created', 1, NEW.status, NEW.progress, author);
    IF NEW.pending > 0 THEN
        INSERT INTO clip_signals (clip_id, attempt, requested_status, source)
        VALUES (NEW.id, 1, left(NEW.processing_details ->> 'requested_status', 100), author);
    END IF;
    RETURN NULL;
END $$;

-- The bounds of a document before it is taken apart. Others than the engine leave it a quarter of the 64 KiB, so
-- that a full document never keeps a clip from being moved or ended. Python reads no deeper than some hundreds of
-- levels; 32 are more than any document of ours has. Nor does it read whole numbers of thousands of digits, which
-- 1e5000 is in a document of ten bytes: one such clip would spoil every list that it stands in.
CREATE OR REPLACE FUNCTION check_document(doc jsonb, is_from_outside boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_path_exists(doc, '$.**{33}') THEN
        RAISE EXCEPTION 'processing_details is nested more than 32 levels deep'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'processing_details_is_shallow';
    END IF;
    IF jsonb_path_exists(doc, '$.** ? (@.type() == "number" && (@ > 1e300 || @ < -1e300))') THEN
        RAISE EXCEPTION 'processing_details holds a number beyond 1e300'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'processing_details_has_plain_numbers';
    END IF;
    IF is_from_outside AND (pg_column_size(without_request(doc)) > 49152 OR pg_column_size(doc -> 'request') > 49152) THEN
        RAISE EXCEPTION 'processing_details would have more than 48 KiB'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'processing_details_is_bounded';
    END IF;
END $$;

-- What is no object stays as it is: a check of the table refuses it by name.
CREATE OR REPLACE FUNCTION without_request(doc jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE jsonb_typeof(doc) WHEN 'object' THEN doc - 'request' ELSE doc END
$$;

CREATE OR REPLACE FUNCTION to_attempt(value jsonb) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN value #>> '{}' ~ '^[0-9]{1,9}$' THEN (value #>> '{}')::integer END
$$;

-- A part of the law's function now; as one of its own each call of it cost as much as what it did.
DROP FUNCTION IF EXISTS take_request(clips, jsonb);

-- What a transaction needs of this function is made ready anew by each one, expression by expression, at the first that
-- comes to it. So what most updates need comes first, in few expressions, and long ones stand where few get to.
CREATE OR REPLACE FUNCTION clips_obey_the_law() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    rest clips;
    is_from_outside boolean;
    before jsonb;
    doc jsonb;
    request jsonb;
    asked_attempt integer;
BEGIN
    -- The quick way, for what the rest would let pass as it is: the engine's statements count the version up and set
    -- the time themselves. One expression takes an eighth of the time of all that follows. As a condition of the
    -- trigger it would take less, but be read anew by every statement, which makes each single request slow.
    IF NEW.version = OLD.version + 1 THEN
        IF NEW.updated_at BETWEEN OLD.updated_at AND greatest(clock_timestamp(), OLD.updated_at)
           AND NEW.updated_at >= statement_timestamp()
           AND NEW.id = OLD.id AND NEW.pipeline = OLD.pipeline AND NEW.created_at = OLD.created_at
           AND NEW.epoch >= OLD.epoch
           AND NEW.attempt = OLD.attempt AND NEW.progress >= OLD.progress AND NEW.status <> 'error'
           AND (NEW.status = OLD.status OR status_may_move(NEW.pipeline, OLD.status, NEW.status))
           AND status_holds(NEW.pipeline, NEW.status, NEW.progress)
           AND NOT NEW.processing_details ?| '{requested_status,request}'
           AND NOT jsonb_path_exists(NEW.processing_details, '$.**{33}')
           AND NOT jsonb_path_exists(NEW.processing_details, '$.** ? (@ > 1e300 || @ < -1e300)') THEN
            RETURN NEW;
        END IF;
    END IF;
    -- The document alone is all that others may write; the engine changes something beside it.
    rest := NEW;
    rest.processing_details := OLD.processing_details;
    is_from_outside := rest IS NOT DISTINCT FROM OLD;
    IF NOT is_from_outside THEN
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
            IF status_holds(NEW.pipeline, NEW.status, NEW.progress) IS NOT TRUE THEN
                RAISE EXCEPTION 'progress % does not belong to status %', NEW.progress, NEW.status
                    USING ERRCODE = 'check_violation', CONSTRAINT = 'progress-span';
            END IF;
        END IF;
    END IF;
    IF NEW.processing_details IS DISTINCT FROM OLD.processing_details THEN
        -- What check_document would refuse is looked for here first: calling it costs more than looking.
        IF jsonb_path_exists(NEW.processing_details, '$.**{33}')
           OR jsonb_path_exists(NEW.processing_details, '$.** ? (@ > 1e300 || @ < -1e300)')
           OR pg_column_size(NEW.processing_details) > 49152 THEN
            PERFORM check_document(NEW.processing_details, is_from_outside);
        END IF;
        IF is_from_outside AND NEW.look_at IS NULL THEN
            NEW.look_at := clock_timestamp();   -- an ended clip: what was written may call for tidying up
        END IF;
        -- A request in the document goes to the inbox; of several pending ones the document shows the highest.
        before := OLD.processing_details;
        doc := without_request(NEW.processing_details);
        request := NEW.processing_details -> 'request';
        IF doc ->> 'requested_status' IS NOT NULL
           AND (request IS NOT NULL OR NEW.pending = 0
                OR (doc -> 'requested_status') IS DISTINCT FROM (before -> 'requested_status')
                OR (doc -> 'status_request_time') IS DISTINCT FROM (before -> 'status_request_time')) THEN
            IF jsonb_typeof(request) IS DISTINCT FROM 'object' THEN
                request := '{}';
            END IF;
            -- An attempt that stood there before says nothing about this request; one that its writer wrote does.
            asked_attempt := coalesce(to_attempt(request -> 'attempt'),
                CASE WHEN (doc -> 'requested_attempt') IS DISTINCT FROM (before -> 'requested_attempt')
                     THEN to_attempt(doc -> 'requested_attempt') END,
                NEW.attempt);
            INSERT INTO clip_signals (clip_id, attempt, requested_status, source, details, insists, hearsay)
            VALUES (NEW.id, asked_attempt, left(doc ->> 'requested_status', 100),
                    left(coalesce(request ->> 'source', 'unknown'), 100),
                    CASE jsonb_typeof(request -> 'details') WHEN 'object' THEN request -> 'details' ELSE '{}' END,
                    coalesce(request -> 'insists' = 'true'::jsonb, false),
                    coalesce(request -> 'hearsay' = 'true'::jsonb, false));
            NEW.pending := NEW.pending + 1;
            doc := doc || jsonb_build_object('requested_attempt', asked_attempt,
                'status_request_time', coalesce(doc -> 'status_request_time', to_jsonb(clock_timestamp())));
            IF NEW.pending > 1 AND before ->> 'requested_status' IS NOT NULL THEN
                IF (coalesce(to_attempt(before -> 'requested_attempt'), NEW.attempt),
                    coalesce(status_order(NEW.pipeline, before ->> 'requested_status'), 0))
                 > (asked_attempt, coalesce(status_order(NEW.pipeline, left(doc ->> 'requested_status', 100)), 0)) THEN
                    doc := doc || jsonb_build_object('requested_status', before -> 'requested_status',
                        'requested_attempt', before -> 'requested_attempt',
                        'status_request_time', before -> 'status_request_time');
                END IF;
            END IF;
        END IF;
        NEW.processing_details := doc;
    END IF;
    NEW.version := OLD.version + 1;
    NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at);
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER clips_begin_at_the_beginning BEFORE INSERT ON clips
    FOR EACH ROW EXECUTE FUNCTION clips_begin_at_the_beginning();
CREATE OR REPLACE TRIGGER clips_are_announced AFTER INSERT ON clips
    FOR EACH ROW EXECUTE FUNCTION clips_are_announced();
CREATE OR REPLACE TRIGGER clips_obey_the_law BEFORE UPDATE ON clips
    FOR EACH ROW EXECUTE FUNCTION clips_obey_the_law();
