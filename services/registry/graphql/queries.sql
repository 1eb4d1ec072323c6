-- name: assets(workspace, urns)
-- Assets by URN.
SELECT * FROM asset WHERE workspace = :workspace AND urn = ANY(:urns::text[]);

-- name: assets_after(workspace, kind, after, most)
-- Assets by URN, of a kind or of all, after one of them; none that is hidden.
SELECT * FROM asset WHERE workspace = :workspace AND (:kind::text IS NULL OR kind = :kind) AND urn > :after AND NOT hidden
ORDER BY urn LIMIT :most;

-- name: newest(workspace, urns, most)
-- The newest versions of assets, so many of each, that are not yanked.
SELECT found.urn, found.version FROM unnest(:urns::text[]) AS asked (urn), LATERAL (
    SELECT v.urn, v.version FROM version AS v
    WHERE v.workspace = :workspace AND v.urn = asked.urn AND NOT EXISTS (
        SELECT FROM version_state AS s WHERE s.workspace = :workspace AND s.urn = v.urn AND s.version = v.version
        AND s.yanked_at IS NOT NULL)
    ORDER BY v.version DESC LIMIT :most) AS found
ORDER BY found.urn, found.version DESC;

-- name: pointers(workspace, urns)
-- Where the aliases of assets point, and which version is in production.
SELECT urn, alias AS name, after AS version, 'alias' AS kind FROM (
    SELECT DISTINCT ON (urn, alias) urn, alias, after FROM alias_move
    WHERE workspace = :workspace AND urn = ANY(:urns::text[]) ORDER BY urn, alias, revision DESC) AS moved
WHERE after IS NOT NULL
UNION ALL
SELECT urn, 'production', version, 'stage' FROM (
    SELECT DISTINCT ON (urn, version) urn, version, after FROM stage_move
    WHERE workspace = :workspace AND urn = ANY(:urns::text[]) ORDER BY urn, version, revision DESC) AS staged
WHERE after = 'production'
ORDER BY urn, kind, name;
