-- name: insert_provider(workspace, name, configuration, at, who)!
-- A new provider, without a key.
INSERT INTO provider (workspace, name, configuration, created_at, changed_at, changed_by)
VALUES (:workspace, :name, :configuration, :at, :at, :who);

-- name: replace_provider(name, configuration, expected, keeps_key, at, who)$
-- Another configuration, only in place of the one that was decided upon; NULL when somebody else was first.
UPDATE provider SET configuration = :configuration, revision = revision + 1, changed_at = :at, changed_by = :who,
    stamp = clock_timestamp(),
    sealed = CASE WHEN :keeps_key THEN sealed END, key_set_at = CASE WHEN :keeps_key THEN key_set_at END,
    key_set_by = CASE WHEN :keeps_key THEN key_set_by END
WHERE name = :name AND revision = :expected RETURNING revision;

-- name: set_key(name, expected, sealed, at, who)$
-- The provider's key, sealed, in place of the one before, for the configuration that it was sealed for.
UPDATE provider SET sealed = :sealed, key_set_at = :at, key_set_by = :who, stamp = clock_timestamp()
WHERE name = :name AND revision = :expected RETURNING revision;

-- name: provider(name)^
-- A provider, without its key.
SELECT name, configuration, revision, created_at, changed_at, changed_by, key_set_at, key_set_by
FROM provider WHERE name = :name;

-- name: providers(after, most)
-- The workspace's providers without their keys, in the order of names.
SELECT name, configuration, revision, created_at, changed_at, changed_by, key_set_at, key_set_by
FROM provider WHERE name > :after ORDER BY name LIMIT :most;

-- name: sealed_keys()
-- Every sealed key, to be wrapped by another master key.
SELECT name, sealed FROM provider WHERE sealed IS NOT NULL ORDER BY name FOR UPDATE;

-- name: rewrap_key(name, sealed)!
-- The same key under another master key; who set it, and when, stays.
UPDATE provider SET sealed = :sealed, stamp = clock_timestamp() WHERE name = :name;
