-- Most transactions emit one event. Sorting arrays of one into runs costs Postgres more than the two rows that they
-- become, so a lone event has a way of its own into the outbox; what it writes is the same.

CREATE FUNCTION emit_event(
    p_workspace text, p_id text, p_topic text, p_type text, p_key text, p_data bytea, p_proof text,
    p_correlation text, p_causation text, p_traceparent text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    reached bigint;
BEGIN
    INSERT INTO outbox_sequence AS s (workspace, topic, key, last) VALUES (p_workspace, p_topic, p_key, 1)
    ON CONFLICT (workspace, topic, key) DO UPDATE SET last = s.last + 1
    RETURNING last INTO reached;
    INSERT INTO outbox (workspace, event_id, topic, type, key, sequence, data, proof, correlation_id, causation_id, traceparent)
    VALUES (p_workspace, p_id, p_topic, p_type, p_key, reached, p_data, p_proof,
            coalesce(p_correlation, p_id), p_causation, p_traceparent);
END $$;
