-- name: parts(workspace, urns, versions)
-- Versions by URN and number.
SELECT version.* FROM unnest(:urns::text[], :versions::integer[]) AS asked (urn, version)
JOIN version ON version.workspace = :workspace AND version.urn = asked.urn AND version.version = asked.version;

-- name: newest_parts(workspace, urns, before)
-- The newest version of each asset that was registered before another one: later ones were not what it was made from.
SELECT DISTINCT ON (urn) * FROM version WHERE workspace = :workspace AND urn = ANY(:urns::text[]) AND number < :before
ORDER BY urn, version DESC;
