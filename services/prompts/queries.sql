-- name: lock_prompt(workspace, name)$
-- The prompt's row, made if need be and locked until commit; returns its last version number.
INSERT INTO prompt (workspace, name) VALUES (:workspace, :name)
ON CONFLICT (workspace, name) DO UPDATE SET last_version = prompt.last_version
RETURNING last_version;

-- name: count_version(workspace, name, version)!
-- One more version of a locked prompt.
UPDATE prompt SET last_version = :version WHERE workspace = :workspace AND name = :name;

-- name: add_version(workspace, name, version, digest, content, commit_message, author, submission_id, published_at)!
-- A new version; it never changes.
INSERT INTO prompt_version (
    workspace, name, version, digest, content, commit_message, author, submission_id, state, published_at
) VALUES (
    :workspace, :name, :version, :digest, :content, :commit_message, :author, :submission_id, 'submitted', :published_at
);

-- name: decide_version(workspace, submission_id, state, asset_version, asset_digest, code, reason)!
-- What became of it at the registry.
UPDATE prompt_version SET state = :state, asset_version = :asset_version, asset_digest = :asset_digest,
    code = :code, reason = :reason
WHERE workspace = :workspace AND submission_id = :submission_id AND state = 'submitted';

-- name: version(workspace, name, version)^
-- One version.
SELECT * FROM prompt_version WHERE workspace = :workspace AND name = :name AND version = :version;

-- name: newest(workspace, name, at)^
-- The newest version, or the newest at a time.
SELECT * FROM prompt_version
WHERE workspace = :workspace AND name = :name AND (CAST(:at AS timestamptz) IS NULL OR published_at <= :at)
ORDER BY version DESC LIMIT 1;

-- name: versions(workspace, name, before, most)
-- Versions of a prompt, newest first, below a number.
SELECT * FROM prompt_version WHERE workspace = :workspace AND name = :name AND version < :before
ORDER BY version DESC LIMIT :most;

-- name: prompts(workspace, after, most)
-- Prompts by name, behind one.
SELECT name, last_version FROM prompt WHERE workspace = :workspace AND name > :after AND last_version > 0
ORDER BY name LIMIT :most;

-- name: label(workspace, name, label, at)^
-- The newest move of a label, or the newest at a time.
SELECT * FROM label_move
WHERE workspace = :workspace AND name = :name AND label = :label AND (CAST(:at AS timestamptz) IS NULL OR at <= :at)
ORDER BY id DESC LIMIT 1;

-- name: labels(workspace, name)
-- Where every label of a prompt points now.
SELECT DISTINCT ON (label) * FROM label_move WHERE workspace = :workspace AND name = :name ORDER BY label, id DESC;

-- name: label_history(workspace, name, label)
-- Every move of a label, newest first.
SELECT * FROM label_move WHERE workspace = :workspace AND name = :name AND label = :label ORDER BY id DESC LIMIT 1000;

-- name: move_label(workspace, name, label, before, after, reason, actor, at)!
-- One more move.
INSERT INTO label_move (workspace, name, label, before, after, reason, actor, at)
VALUES (:workspace, :name, :label, :before, :after, :reason, :actor, :at);
