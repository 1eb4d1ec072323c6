-- name: keep_event(workspace, digest, kind, event_at, document, who, received_at)$
-- An event as it came; NULL when it had come before.
INSERT INTO openlineage_event (workspace, digest, kind, event_at, document, who, received_at)
VALUES (:workspace, :digest, :kind, :event_at, :document::text::jsonb, :who, :received_at) ON CONFLICT DO NOTHING RETURNING true;

-- name: put_facets(workspace, nodes, scopes, names, documents, at)!
-- Facets by their newest word, in order, so that no two transactions wait for each other.
INSERT INTO openlineage_facet (workspace, node, scope, name, at, document)
SELECT :workspace::text, node, scope, name, :at::timestamptz, document::jsonb
FROM unnest(:nodes::text[], :scopes::text[], :names::text[], :documents::text[]) AS f (node, scope, name, document)
ON CONFLICT (workspace, node, scope, name) DO UPDATE SET at = excluded.at, document = excluded.document
WHERE openlineage_facet.at <= excluded.at;

-- name: facets(workspace, node)
-- Everything that was said of a node.
SELECT scope, name, at, document FROM openlineage_facet WHERE workspace = :workspace AND node = :node
AND NOT coalesce((document -> '_deleted')::text = 'true', false) ORDER BY scope, name;

-- name: told_after(workspace, xid, number, most)
-- Edges in the order in which they became visible, after one; none of them can be preceded by another any more.
SELECT xid::text AS xid, number, source, association, destination, since, properties, event_id FROM edge
WHERE workspace = :workspace AND (xid, number) > (:xid::text::xid8, :number::bigint)
AND xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY edge.xid, edge.number LIMIT :most;

-- name: ensure_cursors(url, at)!
-- A place to remember how far each workspace was told. Workspaces are found by stepping over an index.
WITH RECURSIVE there AS (
    (SELECT workspace FROM edge ORDER BY workspace LIMIT 1)
    UNION ALL
    SELECT (SELECT workspace FROM edge WHERE edge.workspace > there.workspace ORDER BY workspace LIMIT 1)
    FROM there WHERE there.workspace IS NOT NULL)
INSERT INTO openlineage_cursor (workspace, url, xid, number, due_at)
SELECT workspace, :url::text, '0'::xid8, 0, :at::timestamptz FROM there WHERE workspace IS NOT NULL ON CONFLICT DO NOTHING;

-- name: claim_cursor(url, lease, now, until)^
-- The workspace whose turn it is, held by a lease.
UPDATE openlineage_cursor SET lease = :lease, due_at = :until WHERE (workspace, url) = (
    SELECT workspace, url FROM openlineage_cursor WHERE url = :url AND due_at <= :now ORDER BY due_at LIMIT 1
    FOR UPDATE SKIP LOCKED)
RETURNING workspace, xid::text AS xid, number, attempts, refusals;

-- name: advance_cursor(workspace, url, lease, xid, number, told, skipped, until)$
-- Told up to here, and the lease renewed; NULL when somebody else holds it by now.
UPDATE openlineage_cursor SET xid = :xid::text::xid8, number = :number, told = told + :told, skipped = skipped + :skipped,
    attempts = 0, refusals = 0, error = NULL, due_at = :until
WHERE workspace = :workspace AND url = :url AND lease = :lease RETURNING true;

-- name: rest_cursor(workspace, url, lease, attempts, refusals, error, due_at)!
-- Give the workspace back, to be looked at again later.
UPDATE openlineage_cursor SET attempts = :attempts, refusals = :refusals, error = :error, due_at = :due_at,
    lease = NULL
WHERE workspace = :workspace AND url = :url AND lease = :lease;

-- name: cursors(workspace)
-- How far a workspace was told.
SELECT url, told, skipped, attempts, error FROM openlineage_cursor WHERE workspace = :workspace ORDER BY url;
