-- name: imported(workspace, source, source_ids)
-- What came from a source before, by the names it has there.
SELECT * FROM imported WHERE workspace = :workspace AND source = :source AND source_id = ANY(:source_ids::text[]);

-- name: keep_imported(workspace, source, source_id, urn, version, fingerprint, said, at)!
-- What something from a source is here, and what was said of it there last.
INSERT INTO imported (workspace, source, source_id, urn, version, fingerprint, said, first_at, last_at)
VALUES (:workspace, :source, :source_id, :urn, :version, :fingerprint, :said, :at, :at)
ON CONFLICT (workspace, source, source_id) DO UPDATE SET said = excluded.said, last_at = excluded.last_at;

-- name: imported_versions(workspace, source, urn)
-- The versions of an asset that came from a source.
SELECT version FROM imported WHERE workspace = :workspace AND urn = :urn AND source = :source AND version > 0;

-- name: hold_foreign(workspace, name)!
-- Whoever else brings in what has this name waits until commit: a row that is not there yet cannot be held.
SELECT pg_advisory_xact_lock(hashtextextended(:workspace || '/foreign/' || :name, 0));
