-- name: keep_proposal(workspace, id, document, shape, mapping, fields, unmapped, notes, made_by, made_at)!
-- A new proposal.
INSERT INTO foreign_proposal (workspace, id, document, shape, mapping, fields, unmapped, notes, made_by, made_at)
VALUES (:workspace, :id, :document, :shape, :mapping, :fields, :unmapped, :notes, :made_by, :made_at);

-- name: proposal(workspace, id)^
-- One proposal.
SELECT * FROM foreign_proposal WHERE workspace = :workspace AND id = :id;

-- name: lock_proposal(workspace, id)^
-- One proposal, held until commit.
SELECT * FROM foreign_proposal WHERE workspace = :workspace AND id = :id FOR UPDATE;

-- name: correct_proposal(workspace, id, fields, unmapped)!
-- A held proposal with other fields.
UPDATE foreign_proposal SET fields = :fields, unmapped = :unmapped WHERE workspace = :workspace AND id = :id;

-- name: accept_proposal(workspace, id, urn, submission_id, version, at)!
-- What a held proposal became; the version is not known yet where its bytes are being fetched.
UPDATE foreign_proposal SET urn = :urn, submission_id = :submission_id, version = :version, accepted_at = :at
WHERE workspace = :workspace AND id = :id;

-- name: proposals_before(workspace, before, most)
-- Proposals, newest first, below an id.
SELECT * FROM foreign_proposal WHERE workspace = :workspace AND id < :before ORDER BY id DESC LIMIT :most;

-- name: proposals_of(workspace, urn, version)
-- The proposals that became a version, oldest first.
SELECT found.* FROM foreign_proposal AS found
LEFT JOIN submission AS asked ON asked.workspace = found.workspace AND asked.submission_id = found.submission_id
WHERE found.workspace = :workspace AND found.urn = :urn AND coalesce(found.version, asked.version) = :version
ORDER BY found.id LIMIT 100;

-- name: keep_mapping(workspace, name, shape, rules, made_by, made_at)!
-- A named mapping; one of the same name is replaced.
INSERT INTO foreign_mapping (workspace, name, shape, rules, made_by, made_at)
VALUES (:workspace, :name, :shape, :rules, :made_by, :made_at)
ON CONFLICT (workspace, name) DO UPDATE SET
    shape = excluded.shape, rules = excluded.rules, made_by = excluded.made_by, made_at = excluded.made_at;

-- name: mapping(workspace, name)^
-- One mapping.
SELECT * FROM foreign_mapping WHERE workspace = :workspace AND name = :name;

-- name: mapping_of_shape(workspace, shape)^
-- The mapping that was kept last for documents of a structure.
SELECT * FROM foreign_mapping WHERE workspace = :workspace AND shape = :shape ORDER BY made_at DESC, name LIMIT 1;

-- name: mappings(workspace)
-- Every mapping, by name.
SELECT * FROM foreign_mapping WHERE workspace = :workspace ORDER BY name LIMIT 1000;

-- name: drop_mapping(workspace, name)$
-- Forget a mapping; NULL where there is none.
DELETE FROM foreign_mapping WHERE workspace = :workspace AND name = :name RETURNING true;
