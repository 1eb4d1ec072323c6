-- One row of the log of what finds a version: terms that find it from now on or no longer, with the words of its text
-- before and after. With a URN the version is new, and has the class that its asset was given before.
CREATE FUNCTION log_search_change(
    p_workspace text, p_number bigint, p_gone text[], p_come text[], p_before text, p_after text, p_fields text[],
    p_numbers float8[], p_gist text, p_urn text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_change (workspace, number, gone, come, fields, numbers, gist)
    SELECT p_workspace, p_number,
           p_gone || ARRAY(
               SELECT 'word=' || lexeme FROM unnest(tsvector_to_array(to_tsvector('english', p_before))) AS lexeme
               WHERE length(lexeme) <= 500),
           p_come || ARRAY(
               SELECT 'word=' || lexeme FROM unnest(tsvector_to_array(to_tsvector('english', p_after))) AS lexeme
               WHERE length(lexeme) <= 500)
           || CASE WHEN p_urn IS NULL THEN '{}'::text[] ELSE ARRAY(
               SELECT said FROM (
                   SELECT document FROM finding WHERE workspace = p_workspace AND finding.urn = p_urn AND version = 0
                   AND kind = 'classification' ORDER BY at DESC LIMIT 1) AS class,
               LATERAL (VALUES ('risk=' || (document ->> 'risk')), ('has=risk'),
                               ('cost=' || (document ->> 'cost')), ('has=cost')) AS v (said)) END,
           p_fields, p_numbers, p_gist;
END $$;

-- The most frequent registration of clients of other registries, in one statement: a further version of an asset that is
-- there, known by its source alone. What it writes is what the same registration writes step by step: number, version,
-- what search finds it by, and asset.registered in the outbox. NULL where there is no such asset, or it has no version
-- yet, which is looked at more closely (services/registry/handlers/models.py).
--
-- The event is handed over as the text around the version's number, which nobody knows before.
CREATE FUNCTION register_at_once(
    p_workspace text, p_urn text, p_title text, p_digest text, p_content jsonb, p_tags jsonb, p_description text,
    p_author text, p_proven boolean, p_submission uuid, p_at timestamptz,
    p_come text[], p_text text, p_fields text[], p_numbers float8[], p_gist text,
    p_event_id text, p_before text, p_after text, p_correlation text, p_causation text, p_traceparent text
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    made integer;
    place bigint;
BEGIN
    PERFORM set_config('mintmark.workspace', p_workspace, true);
    UPDATE asset SET last_version = last_version + 1, updated_at = greatest(updated_at, p_at)
    WHERE workspace = p_workspace AND urn = p_urn AND title = p_title AND NOT hidden AND last_version > 0
    RETURNING last_version INTO made;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO version (workspace, urn, version, digest, content, tags, description, metrics, author, author_proven,
                         submission_id, registered_at)
    VALUES (p_workspace, p_urn, made, p_digest, p_content, p_tags, p_description, '{}', p_author, p_proven,
            p_submission, p_at)
    RETURNING number INTO place;
    PERFORM log_search_change(p_workspace, place, '{}', p_come, '', p_text, p_fields || 'version'::text,
                              p_numbers || made::float8, p_gist, p_urn);
    PERFORM emit_event(
        p_workspace, p_event_id, 'asset.registered', 'asset.registered.v1', p_urn,
        convert_to(p_before || made || p_after, 'UTF8'), NULL, p_correlation, p_causation, p_traceparent);
    RETURN made;
END $$;
