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

-- name: provider_users(name)
-- The workspace's groups that name the provider, for one of their versions or in their failover.
SELECT g.name FROM model_group g JOIN group_revision r ON r.group_name = g.name AND r.revision = g.revision
WHERE g.deleted_at IS NULL AND (
    EXISTS (SELECT FROM jsonb_array_elements(r.hosted) AS one WHERE one ->> 'provider' = :name)
    OR jsonb_path_exists(group_settings(g.name, g.revision), '$.routing.failover[*].targets[*] ? (@.provider == $name)',
                         jsonb_build_object('name', CAST(:name AS text))))
ORDER BY g.name;

-- name: remove_provider(name)!
-- The provider, and with it its key.
DELETE FROM provider WHERE name = :name;
