-- Events of one aggregate that are emitted together take their numbers together. One upsert an event was quadratic: each
-- had to step over the row versions that the ones before it had left, and 10,000 words of feedback took 11 s.

CREATE OR REPLACE FUNCTION emit_events(
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
