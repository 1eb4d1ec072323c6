-- An answer from the cache of a version that the weights drew is `cached`, and one of a rule's is the rule's: as the shipper
-- counts their rows (gateway/shipper/batch.py). What counted as `cache` until now is in nobody's experiment, then and now.
CREATE OR REPLACE FUNCTION rows_spoken_of(p_group text, p_request_ids uuid[]) RETURNS TABLE (
    spoken_of uuid, route text, request_id uuid, received_at timestamptz, revision bigint, asset text, version integer,
    digest text, unit text, status smallint, error_code text, latency_ms double precision, score double precision,
    prediction text
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format($query$
        SELECT request_id,
               CASE WHEN coalesce(tags ->> 'failed_over', '') NOT IN ('', 'false') THEN 'failover'
                    WHEN tags ? 'route' AND NOT tags ? 'gave_way' THEN 'rule'
                    WHEN coalesce(tags ->> 'cache', '') NOT IN ('', 'false') THEN 'cached'
                    ELSE 'weight' END,
               request_id, received_at, revision, asset, version, digest, unit, status, error_code, latency_ms, score, prediction
        FROM %1$I WHERE request_id = ANY ($1) AND shadow_of IS NULL
        UNION ALL
        SELECT shadow_of, 'shadow', request_id, received_at, revision, asset, version, digest, unit, status, error_code,
               latency_ms, score, prediction
        FROM %1$I WHERE shadow_of = ANY ($1)
    $query$, 'inference_log_' || replace(p_group, '-', '_')) USING p_request_ids;
END $$;
