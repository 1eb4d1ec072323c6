-- name: snapshot_stamp()$
-- Differs whenever a gateway's snapshot is old. Cheap enough to ask every second.
SELECT concat_ws(' ',
    (SELECT concat_ws('/', count(*), sum(revision), bit_xor(hashtextextended(name, 0))) FROM model_group WHERE retired_at IS NULL),
    (SELECT concat_ws('/', count(*), bit_xor(hashtextextended(urn || version || changed_at, 0))) FROM served_version),
    (SELECT concat_ws('/', count(*), bit_xor(hashtextextended(workspace || name || stamp, 0))) FROM provider),
    (SELECT concat_ws('/', count(*), bit_xor(hashtextextended(workspace || urn || changed_at, 0))) FROM asset_class));

-- name: snapshot_groups()
-- Every group as it is in force.
SELECT g.workspace, g.name, g.revision, g.unit_header, g.unit_body_id, group_settings(g.name, g.revision) AS settings,
       (SELECT jsonb_object_agg(k.kind, jsonb_build_object('value', k.value, 'sealed', k.sealed))
        FROM group_key k WHERE k.group_name = g.name) AS keys,
       r.champion_urn, r.champion_version, r.champion_digest, r.challengers, r.shadows, r.hosted, g.created_at
FROM model_group g JOIN group_revision r ON r.group_name = g.name AND r.revision = g.revision
WHERE g.retired_at IS NULL ORDER BY g.name;

-- name: snapshot_versions()
-- Every version that answers somewhere, with the approval that the gateway verifies itself; and champions that do no
-- longer, with the reason.
SELECT workspace, urn, version, digest, endpoint, model_name, statement, signature, guardrails, withdrawn_at, withdrawn_why
FROM served_version s
WHERE withdrawn_at IS NULL OR EXISTS (
    SELECT FROM model_group g JOIN group_revision r ON r.group_name = g.name AND r.revision = g.revision
    WHERE g.workspace = s.workspace AND (r.champion_urn, r.champion_version) = (s.urn, s.version));

-- name: snapshot_providers()
-- How every provider is asked, and its sealed key, which gateways open.
SELECT workspace, name, configuration, sealed FROM provider ORDER BY workspace, name;

-- name: snapshot_classes()
-- The classes of assets; the monthly cap as text, since the snapshot is kept as JSON.
SELECT workspace, urn, risk, cost, monthly_usd::text FROM asset_class ORDER BY workspace, urn;

-- name: classify(workspace, urn, risk, cost, monthly_usd, who, why)!
-- The asset's classes from now on.
INSERT INTO asset_class (workspace, urn, risk, cost, monthly_usd, who, why)
VALUES (:workspace, :urn, :risk, :cost, :monthly_usd, :who, :why)
ON CONFLICT (workspace, urn) DO UPDATE SET risk = excluded.risk, cost = excluded.cost, monthly_usd = excluded.monthly_usd,
    who = excluded.who, why = excluded.why, changed_at = clock_timestamp();

-- name: brought_guards(name)
-- The guards that come with the versions of a group, its champion's first.
SELECT s.urn, s.version, s.guardrails FROM model_group g
JOIN group_revision r ON r.group_name = g.name AND r.revision = g.revision
JOIN served_version s ON s.workspace = g.workspace AND s.withdrawn_at IS NULL AND s.guardrails <> '[]' AND (
    (s.urn, s.version) = (r.champion_urn, r.champion_version) OR EXISTS (
        SELECT FROM jsonb_array_elements(r.challengers) AS one
        WHERE one ->> 'urn' = s.urn AND (one ->> 'version')::integer = s.version))
WHERE g.name = :name ORDER BY (s.urn, s.version) = (r.champion_urn, r.champion_version) DESC, s.urn, s.version;

-- name: upsert_served_version(workspace, urn, version, digest, deployment_id, target, endpoint, model_name, statement, signature, guardrails, completed_at, proven)!
-- The latest deployment of a version gets its traffic; one whose approval nobody can verify never replaces another.
INSERT INTO served_version (workspace, urn, version, digest, deployment_id, target, endpoint, model_name, statement, signature, guardrails, completed_at)
VALUES (:workspace, :urn, :version, :digest, :deployment_id, :target, :endpoint, :model_name, :statement, :signature, :guardrails, :completed_at)
ON CONFLICT (workspace, urn, version) DO UPDATE SET
    digest = excluded.digest, deployment_id = excluded.deployment_id, target = excluded.target, endpoint = excluded.endpoint,
    model_name = excluded.model_name, statement = excluded.statement, signature = excluded.signature,
    guardrails = excluded.guardrails, completed_at = excluded.completed_at, changed_at = clock_timestamp(),
    withdrawn_at = CASE WHEN served_version.target = excluded.target AND served_version.withdrawn_at >= excluded.completed_at
                        THEN served_version.withdrawn_at END
WHERE :proven AND served_version.completed_at <= excluded.completed_at;

-- name: withdraw_version(urn, version, deployment_id, target, withdrawn_at, why)!
-- The version answers no longer, unless it was deployed again since.
UPDATE served_version SET withdrawn_at = :withdrawn_at, withdrawn_why = :why, changed_at = clock_timestamp()
WHERE urn = :urn AND version = :version AND withdrawn_at IS NULL
    AND (deployment_id = :deployment_id OR (target = :target AND completed_at <= :withdrawn_at));

-- name: version_is_known(urn, version)$
-- True when a deployment of the version was heard of, whatever became of it.
SELECT EXISTS (SELECT FROM served_version WHERE urn = :urn AND version = :version);

-- name: groups_challenged_by(urn, version)
-- Names of the groups in which a version is a challenger now.
SELECT g.name FROM model_group g JOIN group_revision r ON r.group_name = g.name AND r.revision = g.revision
WHERE EXISTS (SELECT FROM jsonb_array_elements(r.challengers) AS one
              WHERE one ->> 'urn' = :urn AND (one ->> 'version')::integer = :version)
ORDER BY g.name;

-- name: insert_group(workspace, name, log_table, unit_header, unit_body_id, created_at)!
-- A new group at revision 1; its first revision and its table are made in the same transaction.
INSERT INTO model_group (workspace, name, log_table, revision, unit_header, unit_body_id, created_at)
VALUES (:workspace, :name, :log_table, 1, :unit_header, :unit_body_id, :created_at);

-- name: create_log_table(name, workspace)$
-- Make the group's inference table and return its name.
SELECT create_inference_log(:name, :workspace);

-- name: upsert_decision(workspace, urn, version, digest, decision, reason, statement, decided_at)!
-- The last word on a version; an older one that comes later changes nothing.
INSERT INTO approval_decision (workspace, urn, version, digest, decision, reason, statement, decided_at)
VALUES (:workspace, :urn, :version, :digest, :decision, :reason, :statement, :decided_at)
ON CONFLICT (workspace, urn, version) DO UPDATE SET
    digest = excluded.digest, decision = excluded.decision, reason = excluded.reason, statement = excluded.statement,
    decided_at = excluded.decided_at
WHERE approval_decision.decided_at <= excluded.decided_at;

-- name: deployed_version(urn, version)^
-- Where a version answers, and the last word on it.
SELECT s.*, d.decision, d.reason AS decision_reason, d.statement AS decided
FROM served_version s LEFT JOIN approval_decision d USING (workspace, urn, version)
WHERE s.urn = :urn AND s.version = :version AND s.withdrawn_at IS NULL;

-- name: decided_version(urn, version)^
-- The last word on a version, wherever it answers.
SELECT * FROM approval_decision WHERE urn = :urn AND version = :version;

-- name: deployed_versions(after_urn, after_version, most)
-- Where every version answers, in the order of names.
SELECT s.*, d.decision, d.reason AS decision_reason, d.statement AS decided
FROM served_version s LEFT JOIN approval_decision d USING (workspace, urn, version)
WHERE s.withdrawn_at IS NULL AND (s.urn, s.version) > (:after_urn, :after_version::integer)
ORDER BY s.urn, s.version LIMIT :most;

-- name: group_now(name)^
-- A group as it is in force, and since when and why its champion answers nowhere, if so.
SELECT r.*, g.unit_header, g.unit_body_id, g.created_at, g.retired_at, s.withdrawn_at, s.withdrawn_why FROM model_group g
JOIN group_revision r ON r.group_name = g.name AND r.revision = g.revision
LEFT JOIN served_version s ON (s.workspace, s.urn, s.version) = (g.workspace, r.champion_urn, r.champion_version)
WHERE g.name = :name AND g.deleted_at IS NULL;

-- name: groups_now(after, most)
-- The workspace's groups as they are in force, in the order of names; see group_now.
SELECT r.*, g.unit_header, g.unit_body_id, g.created_at, g.retired_at, s.withdrawn_at, s.withdrawn_why FROM model_group g
JOIN group_revision r ON r.group_name = g.name AND r.revision = g.revision
LEFT JOIN served_version s ON (s.workspace, s.urn, s.version) = (g.workspace, r.champion_urn, r.champion_version)
WHERE g.name > :after AND g.deleted_at IS NULL ORDER BY g.name LIMIT :most;

-- name: swap_revision(name, expected)$
-- Move a group to its next revision, only from the one that was decided upon; NULL when somebody else was first.
UPDATE model_group SET revision = revision + 1
WHERE name = :name AND revision = :expected AND retired_at IS NULL RETURNING revision;

-- name: append_revision(workspace, group_name, revision, change, champion_urn, champion_version, champion_digest, challengers, shadows, hosted, who, why, evidence, at)!
-- Log a group's new state, whole.
INSERT INTO group_revision (workspace, group_name, revision, change, champion_urn, champion_version, champion_digest, challengers, shadows, hosted, who, why, evidence, at)
VALUES (:workspace, :group_name, :revision, :change, :champion_urn, :champion_version, :champion_digest, :challengers, :shadows, :hosted, :who, :why, :evidence, :at);

-- name: group_history(name)
-- A group's log, oldest first.
SELECT r.*, g.unit_header, g.unit_body_id, g.created_at FROM group_revision r JOIN model_group g ON g.name = r.group_name
WHERE r.group_name = :name ORDER BY r.revision;

-- name: group_history_since(name, revision)
-- A group's log from a revision on, oldest first.
SELECT r.*, g.unit_header, g.unit_body_id, g.created_at FROM group_revision r JOIN model_group g ON g.name = r.group_name
WHERE r.group_name = :name AND r.revision >= :revision ORDER BY r.revision;

-- name: first_of_champion(name)$
-- The revision of the latest change of champion.
SELECT max(revision) FROM group_revision
WHERE group_name = :name AND change IN ('created', 'promoted', 'rolled_back');

-- name: group_at(name, at)^
-- What served the group at a moment.
SELECT r.*, g.unit_header, g.unit_body_id, g.created_at FROM group_revision r JOIN model_group g ON g.name = r.group_name
WHERE r.group_name = :name AND r.at <= :at ORDER BY r.revision DESC LIMIT 1;

-- name: group_revision(name, revision)^
-- The group as it was at one revision.
SELECT r.*, g.unit_header, g.unit_body_id, g.created_at FROM group_revision r JOIN model_group g ON g.name = r.group_name
WHERE r.group_name = :name AND r.revision = :revision;

-- name: group_settings(name, revision)$
-- What a group is told beside who serves it, as in force at a revision: {section: value}.
SELECT group_settings(:name, :revision);

-- name: add_group_setting(workspace, group_name, section, revision, value, who, why, at)!
-- Log a section's new value.
INSERT INTO group_setting (workspace, group_name, section, revision, value, who, why, at)
VALUES (:workspace, :group_name, :section, :revision, :value, :who, :why, :at);

-- name: group_setting_history(name, section)
-- Every value that a section ever had, oldest first.
SELECT revision, value, who, why, at FROM group_setting
WHERE group_name = :name AND section = :section ORDER BY revision;

-- name: insert_feedback(workspace, group_name, who, ids, request_ids, metrics, numbers, labels, received_at)!
-- Words about requests, an array a column; a word may come before its request's row is there, and comes once.
INSERT INTO feedback (id, workspace, group_name, request_id, metric, value, label, who, received_at)
SELECT said.id, :workspace, :group_name, said.request_id, said.metric, said.value, said.label, :who, :received_at
FROM unnest(:ids::uuid[], :request_ids::uuid[], :metrics::text[], :numbers::float8[], :labels::text[])
    AS said (id, request_id, metric, value, label)
ON CONFLICT (id) DO NOTHING;

-- name: known_requests(name, request_ids)$
-- How many of these requests have a row.
SELECT known_requests(:name, :request_ids);

-- name: spool_position(spool)^
-- How far a spool is in the tables; nothing of one that is new.
SELECT segment, byte_offset FROM spool_position WHERE spool = :spool;

-- name: begin_spool(spool, segment, byte_offset)!
-- From here on a spool is taken; what another shipper began stays as it is.
INSERT INTO spool_position (spool, segment, byte_offset) VALUES (:spool, :segment, :byte_offset) ON CONFLICT DO NOTHING;

-- name: move_spool(spool, segment, byte_offset, to_segment, to_offset, row_count)$
-- Past rows that are in the same transaction; false when the spool's position is another.
SELECT move_spool(:spool, :segment, :byte_offset, :to_segment, :to_offset, :row_count);

-- name: forget_spool(spool)!
-- Its folder is gone.
DELETE FROM spool_position WHERE spool = :spool;

-- name: log_day(name, day)$
-- The partition of a group's table for a day; NULL when there is no such group.
SELECT inference_log_day(:name, :day);

-- name: erased_until(groups)
-- Of which of these groups rows may have been erased, and until when; holds erasures back until the transaction ends.
SELECT * FROM erased_until(:groups);

-- name: erase_late(name, request_ids)$
-- Of rows that have just come, remove those that were to be erased meanwhile; their ids.
SELECT erase_late(:name, :request_ids);

-- name: unplaced_row(workspace, name, error, record)!
-- Keep a row that no inference table takes.
INSERT INTO unplaced_row (workspace, group_name, error, record) VALUES (:workspace, :name, :error, :record);

-- name: say_rows(workspace, ids, topics, types, keys, data, proofs)$
-- Batches of rows into the outbox.
SELECT emit_events(:workspace, :ids, :topics, :types, :keys, :data, :proofs, NULL, NULL, NULL);

-- name: wake_relay(channel)$
-- The outbox holds more.
SELECT pg_notify(:channel, '');

-- name: names()
-- All that a setting may name, of the workspace.
SELECT 'deployed' AS kind, urn || '@' || version AS name FROM served_version WHERE withdrawn_at IS NULL
UNION ALL SELECT 'approved', urn || '@' || version FROM approval_decision WHERE decision = 'approved'
UNION ALL SELECT 'provider', name FROM provider
UNION ALL SELECT 'group', name FROM model_group WHERE retired_at IS NULL;
