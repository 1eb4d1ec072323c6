-- What every service's schema holds beside its own tables: outbox, inbox, parked events, idempotency keys.
-- Runs as the service's role, with search_path set to its schema.

-- Row-level security for a table with a `workspace` column, forced for its owner too. '*' is the kernel's own view
-- (relay, parking); with nothing set, no row is visible.
CREATE FUNCTION mintmark_protect(target regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format(
        'CREATE POLICY one_workspace ON %s USING (workspace = current_setting(''mintmark.workspace'', true) '
        'OR current_setting(''mintmark.workspace'', true) = ''*'')', target);
END $$;

CREATE TABLE outbox (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace      text NOT NULL,
    event_id       text NOT NULL,
    topic          text NOT NULL,
    type           text NOT NULL,
    key            text NOT NULL,
    sequence       bigint,
    data           bytea NOT NULL,
    headers        jsonb,
    correlation_id text,
    causation_id   text,
    traceparent    text,
    proof          text,
    created_at     timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
SELECT mintmark_protect('outbox');

-- The last number given to each aggregate on each topic. Taking the next one locks the row until commit, so that
-- outbox ids of one key are in the order of their commits.
CREATE TABLE outbox_sequence (
    workspace text NOT NULL,
    topic     text NOT NULL,
    key       text NOT NULL,
    last      bigint NOT NULL,
    PRIMARY KEY (workspace, topic, key)
) WITH (fillfactor = 70);
SELECT mintmark_protect('outbox_sequence');

-- Put events into the outbox, in order; arrays of equal length, sorted by aggregate. One round trip however many there
-- are. Those of one aggregate take their numbers together: one upsert an event would be quadratic, as each has to step
-- over the row versions that the ones before it left (10,000 words of feedback took 11 s).
CREATE FUNCTION emit_events(
    p_workspace text, p_ids text[], p_topics text[], p_types text[], p_keys text[], p_data bytea[], p_proofs text[],
    p_correlation text, p_causation text, p_traceparent text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    run record;
    reached bigint;
BEGIN
    -- Rows come sorted by aggregate, and sequences are locked in that order.
    FOR run IN
        SELECT topic, key, min(place) AS first, max(place) AS last, count(*) AS size
        FROM unnest(p_topics, p_keys) WITH ORDINALITY AS e (topic, key, place) GROUP BY topic, key ORDER BY min(place)
    LOOP
        INSERT INTO outbox_sequence AS s (workspace, topic, key, last) VALUES (p_workspace, run.topic, run.key, run.size)
        ON CONFLICT (workspace, topic, key) DO UPDATE SET last = s.last + EXCLUDED.last
        RETURNING last INTO reached;
        INSERT INTO outbox (workspace, event_id, topic, type, key, sequence, data, proof, correlation_id, causation_id, traceparent)
        SELECT p_workspace, e.id, run.topic, e.type, run.key, reached - run.size + e.number, e.data, e.proof,
               coalesce(p_correlation, e.id), p_causation, p_traceparent
        FROM unnest(
            p_ids[run.first:run.last], p_types[run.first:run.last], p_data[run.first:run.last], p_proofs[run.first:run.last]
        ) WITH ORDINALITY AS e (id, type, data, proof, number)
        ORDER BY e.number;
    END LOOP;
END $$;

CREATE TABLE inbox (
    workspace text NOT NULL,
    consumer  text NOT NULL,
    source    text NOT NULL,
    event_id  text NOT NULL,
    outcome   text NOT NULL CHECK (outcome IN ('handled', 'parked', 'dead')),
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, source, consumer, workspace)
);
SELECT mintmark_protect('inbox');

-- How far each aggregate's events of one topic were taken in; an older number is stale.
CREATE TABLE inbox_position (
    workspace text NOT NULL,
    consumer  text NOT NULL,
    source    text NOT NULL,
    topic     text NOT NULL,
    key       text NOT NULL,
    sequence  bigint NOT NULL,
    PRIMARY KEY (key, topic, source, consumer, workspace)
) WITH (fillfactor = 70);
SELECT mintmark_protect('inbox_position');

-- Events that could not be handled yet, in order of arrival; the first of each (consumer, topic, key) is tried again.
CREATE TABLE parked (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace   text NOT NULL,
    consumer    text NOT NULL,
    topic       text NOT NULL,
    key         text NOT NULL,
    partition   integer NOT NULL,
    "offset"    bigint NOT NULL,
    timestamp_ms bigint NOT NULL,
    source      text NOT NULL,
    event_id    text NOT NULL,
    headers     jsonb NOT NULL,
    data        bytea NOT NULL,
    attempts    integer NOT NULL DEFAULT 0,
    error_code  text NOT NULL DEFAULT '',
    error       text NOT NULL DEFAULT '',
    next_try_at timestamptz NOT NULL DEFAULT now(),
    parked_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX parked_by_key ON parked (consumer, workspace, topic, key, id);
SELECT mintmark_protect('parked');

-- Claim an event for its handler's transaction. Returns when the event is to be handled; else raises 'duplicate',
-- 'stale' or 'behind' (an earlier one of its key is parked), which ends the transaction. What is stale is forgotten
-- again: it will be stale whenever it comes.
CREATE FUNCTION claim_event(
    p_workspace text, p_consumer text, p_source text, p_event_id text, p_topic text, p_key text, p_sequence bigint, p_replay boolean
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('mintmark.workspace', p_workspace, true);
    INSERT INTO inbox (workspace, consumer, source, event_id, outcome)
    VALUES (p_workspace, p_consumer, p_source, p_event_id, 'handled') ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        IF p_replay THEN
            UPDATE inbox SET outcome = 'handled', at = now()
            WHERE event_id = p_event_id AND source = p_source AND consumer = p_consumer AND workspace = p_workspace
                AND outcome = 'dead';
            IF FOUND THEN
                RETURN;
            END IF;
        END IF;
        RAISE 'duplicate';
    END IF;
    IF EXISTS (SELECT FROM parked WHERE consumer = p_consumer AND workspace = p_workspace AND topic = p_topic AND key = p_key) THEN
        RAISE 'behind';
    END IF;
    IF p_sequence IS NULL OR p_replay THEN
        RETURN;
    END IF;
    INSERT INTO inbox_position AS known (workspace, consumer, source, topic, key, sequence)
    VALUES (p_workspace, p_consumer, p_source, p_topic, p_key, p_sequence)
    ON CONFLICT (key, topic, source, consumer, workspace) DO UPDATE SET sequence = EXCLUDED.sequence
    WHERE known.sequence < EXCLUDED.sequence;
    IF NOT FOUND THEN
        RAISE 'stale';
    END IF;
END $$;

-- One row a POST with an Idempotency-Key; the row commits with the request's effect, the answer is added afterwards.
CREATE TABLE idempotency (
    workspace text NOT NULL,
    principal text NOT NULL,
    key       text NOT NULL,
    request   text NOT NULL,
    status    integer,
    headers   jsonb,
    body      bytea,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, principal, key)
);
SELECT mintmark_protect('idempotency');
CREATE INDEX inbox_dead ON inbox (consumer) WHERE outcome = 'dead';
