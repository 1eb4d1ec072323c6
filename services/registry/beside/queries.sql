-- name: beside(workspace, urns, versions)
-- Versions with their stage, aliases, findings, bindings, what was decided of the datasets that they were trained and
-- measured on, and other versions that they are part of.
SELECT v.*,
    coalesce((SELECT after FROM stage_move AS m WHERE m.workspace = :workspace AND m.urn = v.urn AND m.version = v.version
              ORDER BY revision DESC LIMIT 1), 'development') AS stage,
    (SELECT coalesce(array_agg(alias ORDER BY alias), '{}') FROM (
        SELECT DISTINCT ON (alias) alias, after FROM alias_move AS m WHERE m.workspace = :workspace AND m.urn = v.urn
        ORDER BY alias, revision DESC) AS last WHERE last.after = v.version) AS aliases,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('kind', kind, 'id', id, 'at', at, 'document', document)
                               ORDER BY at DESC, id DESC), '[]') FROM (
        SELECT kind, id, at, document FROM finding AS f
        WHERE f.workspace = :workspace AND f.urn = v.urn AND f.version IN (0, v.version)
        ORDER BY at DESC, id DESC LIMIT 500) AS said) AS findings,
    (SELECT coalesce(jsonb_agg(jsonb_build_object(
            'binding_id', binding_id, 'consumer', consumer, 'purpose', purpose, 'intent_id', intent_id, 'who', who, 'at', at)
            ORDER BY at DESC, binding_id DESC), '[]') FROM (
        SELECT * FROM binding AS b WHERE b.workspace = :workspace AND b.urn = v.urn AND b.version = v.version
        AND NOT EXISTS (SELECT FROM binding_release AS r WHERE r.workspace = :workspace AND r.binding_id = b.binding_id)
        ORDER BY at DESC LIMIT 500) AS bound) AS bindings,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('dataset', about, 'role', role, 'approval', (
            SELECT document FROM finding AS f WHERE f.workspace = :workspace AND f.urn = named.urn
            AND f.version = named.version AND f.kind = 'approval' ORDER BY at DESC LIMIT 1)) ORDER BY role), '[]') FROM (
        SELECT role, dataset ->> 'urn' AS urn, (dataset ->> 'version')::integer AS version,
               (dataset ->> 'urn') || '@' || (dataset ->> 'version') AS about
        FROM (VALUES ('training', v.content #> '{training,dataset}'), ('golden-set', v.content -> 'golden_set')) AS of (role, dataset)
        WHERE jsonb_typeof(dataset) = 'object') AS named) AS datasets,
    (SELECT coalesce(array_agg(destination ORDER BY destination), '{}') FROM (
        SELECT destination FROM edge AS e WHERE e.workspace = :workspace AND e.source = v.urn || '@' || v.version
        AND e.until IS NULL AND e.association = 'ContributedTo' AND e.destination LIKE 'mm:%@%'
        ORDER BY destination LIMIT 100) AS over) AS closed_over_by
FROM unnest(:urns::text[], :versions::integer[]) AS asked (urn, version)
JOIN version_now AS v ON v.workspace = :workspace AND v.urn = asked.urn AND v.version = asked.version;

-- name: pointed(workspace, urns, aliases)
-- Where aliases of assets point.
SELECT asked.urn, asked.alias, last.after FROM unnest(:urns::text[], :aliases::text[]) AS asked (urn, alias), LATERAL (
    SELECT after FROM alias_move AS m WHERE m.workspace = :workspace AND m.urn = asked.urn AND m.alias = asked.alias
    ORDER BY revision DESC LIMIT 1) AS last
WHERE last.after IS NOT NULL;
