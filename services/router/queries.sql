-- name: snapshot_stamp()$
-- Differs whenever a gateway's snapshot is old. Cheap enough to ask every second.
SELECT concat_ws(' ',
    (SELECT concat_ws('/', count(*), sum(revision)) FROM model_group),
    (SELECT concat_ws('/', count(*), bit_xor(hashtextextended(urn || version || changed_at, 0))) FROM served_version));

-- name: snapshot_groups()
-- Every group as it is in force.
SELECT g.workspace, g.name, g.revision, g.unit_header, g.unit_body_id,
       r.champion_urn, r.champion_version, r.champion_digest, r.challengers
FROM model_group g JOIN group_revision r ON r.group_name = g.name AND r.revision = g.revision
ORDER BY g.name;

-- name: snapshot_versions()
-- Every version that answers somewhere, with the approval that the gateway verifies itself.
SELECT workspace, urn, version, digest, endpoint, model_name, statement, signature
FROM served_version WHERE withdrawn_at IS NULL;

-- name: upsert_served_version(workspace, urn, version, digest, deployment_id, target, endpoint, model_name, statement, signature, completed_at)!
-- The latest deployment of a version is the one that gets its traffic.
INSERT INTO served_version (workspace, urn, version, digest, deployment_id, target, endpoint, model_name, statement, signature, completed_at)
VALUES (:workspace, :urn, :version, :digest, :deployment_id, :target, :endpoint, :model_name, :statement, :signature, :completed_at)
ON CONFLICT (workspace, urn, version) DO UPDATE SET
    digest = excluded.digest, deployment_id = excluded.deployment_id, target = excluded.target, endpoint = excluded.endpoint,
    model_name = excluded.model_name, statement = excluded.statement, signature = excluded.signature,
    completed_at = excluded.completed_at, withdrawn_at = NULL, changed_at = clock_timestamp()
WHERE served_version.completed_at <= excluded.completed_at;

-- name: insert_group(workspace, name, log_table, unit_header, unit_body_id, created_at)!
-- A new group at revision 1; its first revision and its table are made in the same transaction.
INSERT INTO model_group (workspace, name, log_table, revision, unit_header, unit_body_id, created_at)
VALUES (:workspace, :name, :log_table, 1, :unit_header, :unit_body_id, :created_at);

-- name: create_log_table(name, workspace)$
-- Make the group's inference table and return its name.
SELECT create_inference_log(:name, :workspace);

-- name: group_names()
-- Names of the workspace's groups.
SELECT name FROM model_group ORDER BY name;

-- name: swap_revision(name, expected)$
-- Move a group to its next revision, only from the one that was decided upon; NULL when somebody else was first.
UPDATE model_group SET revision = revision + 1 WHERE name = :name AND revision = :expected RETURNING revision;

-- name: append_revision(workspace, group_name, revision, change, champion_urn, champion_version, champion_digest, challengers, who, why, at)!
-- Log a group's new state, whole.
INSERT INTO group_revision (workspace, group_name, revision, change, champion_urn, champion_version, champion_digest, challengers, who, why, at)
VALUES (:workspace, :group_name, :revision, :change, :champion_urn, :champion_version, :champion_digest, :challengers, :who, :why, :at);

-- name: group_history(name)
-- A group's log, oldest first.
SELECT r.*, g.unit_header, g.unit_body_id FROM group_revision r JOIN model_group g ON g.name = r.group_name
WHERE r.group_name = :name ORDER BY r.revision;

-- name: group_at(name, at)^
-- What served the group at a moment.
SELECT r.*, g.unit_header, g.unit_body_id FROM group_revision r JOIN model_group g ON g.name = r.group_name
WHERE r.group_name = :name AND r.at <= :at ORDER BY r.revision DESC LIMIT 1;

-- name: insert_feedback(id, workspace, group_name, request_id, metric, value, label, who, received_at)!
-- One word about a request; it may come before the request's row is there.
INSERT INTO feedback (id, workspace, group_name, request_id, metric, value, label, who, received_at)
VALUES (:id, :workspace, :group_name, :request_id, :metric, :value, :label, :who, :received_at)
ON CONFLICT (id) DO NOTHING;

-- name: comparison(name, since, until)
-- The group's versions side by side over a span of time.
SELECT * FROM compare_versions(:name, :since, :until);
