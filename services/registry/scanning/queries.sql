-- name: keep_scan(workspace, digest, format, statements, at)!
-- What the scanners said of some bytes, their newest word.
INSERT INTO scan (workspace, digest, format, statements, at) VALUES (:workspace, :digest, :format, :statements, :at)
ON CONFLICT (workspace, digest) DO UPDATE SET
    format = excluded.format, statements = excluded.statements, at = excluded.at;

-- name: scans(workspace, digests)
-- What the scanners said of these bytes, where they were scanned.
SELECT * FROM scan WHERE workspace = :workspace AND digest = ANY(:digests::text[]) ORDER BY digest;
