-- name: add_dataset(workspace, urn, version, digest, manifest)!
-- Keep a dataset version; it is immutable.
INSERT INTO dataset (workspace, urn, version, digest, manifest) VALUES (:workspace, :urn, :version, :digest, :manifest)
ON CONFLICT DO NOTHING;

-- name: decide_dataset(workspace, urn, version, decision)!
-- A dataset version may, or may not, be measured on.
UPDATE dataset SET decision = :decision WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: dataset(workspace, urn, version)^
-- One dataset version.
SELECT * FROM dataset WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: add_asset(workspace, urn, version, digest, kind, task, artefact, signature, golden_urn, golden_version)$
-- Keep an asset version; it is immutable. True when it is new.
INSERT INTO asset (workspace, urn, version, digest, kind, task, artefact, signature, golden_urn, golden_version)
VALUES (:workspace, :urn, :version, :digest, :kind, :task, :artefact, :signature, :golden_urn, :golden_version)
ON CONFLICT DO NOTHING RETURNING true;

-- name: asset(workspace, urn, version)^
-- One asset version.
SELECT * FROM asset WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: subject(workspace, urn, version, golden_urn, golden_version)^
-- An asset version beside a dataset version: all that an evaluation is about.
SELECT a.urn, a.version, a.digest, a.kind, a.task, a.artefact, a.signature,
    d.digest AS golden_digest, d.manifest, d.decision
FROM asset AS a JOIN dataset AS d ON d.workspace = a.workspace
WHERE a.workspace = :workspace AND a.urn = :urn AND a.version = :version
  AND d.urn = :golden_urn AND d.version = :golden_version;

-- name: add_evaluation(workspace, id, urn, version, golden_urn, golden_version, template, model, requested_at, correlation_id, causation_id, traceparent)!
-- Work to do; a second request with the same id changes nothing.
INSERT INTO evaluation (
    workspace, id, urn, version, golden_urn, golden_version, template, model, state, requested_at,
    correlation_id, causation_id, traceparent
) VALUES (
    :workspace, :id, :urn, :version, :golden_urn, :golden_version, :template, :model, 'waiting', :requested_at,
    :correlation_id, :causation_id, :traceparent
) ON CONFLICT DO NOTHING;

-- name: claim_finish(lease_s, prompts)^
-- A running evaluation (of a prompt, or of none) whose shards are all there, ours until its lease ends.
UPDATE evaluation SET lease_until = now() + make_interval(secs => :lease_s), attempts = attempts + 1
WHERE (workspace, id) = (
    SELECT e.workspace, e.id FROM evaluation AS e
    WHERE e.state = 'running' AND (e.lease_until IS NULL OR e.lease_until < now())
      AND (e.model IS NOT NULL) = CAST(:prompts AS boolean)
      AND NOT EXISTS (SELECT FROM shard AS s WHERE (s.workspace, s.evaluation_id) = (e.workspace, e.id) AND s.result IS NULL)
    ORDER BY e.requested_at LIMIT 1 FOR UPDATE OF e SKIP LOCKED
)
RETURNING *;

-- name: claim_shard(lease_s, prompts)^
-- The first open shard of the longest running evaluation, ours until its lease ends.
UPDATE shard SET lease_until = now() + make_interval(secs => :lease_s), attempts = attempts + 1
WHERE (workspace, evaluation_id, index) = (
    SELECT s.workspace, s.evaluation_id, s.index FROM shard AS s
    JOIN evaluation AS e ON (e.workspace, e.id) = (s.workspace, s.evaluation_id)
    WHERE e.state = 'running' AND s.result IS NULL AND (s.lease_until IS NULL OR s.lease_until < now())
      AND (e.model IS NOT NULL) = CAST(:prompts AS boolean)
    ORDER BY e.requested_at, s.index LIMIT 1 FOR UPDATE OF s SKIP LOCKED
)
RETURNING *;

-- name: claim_evaluation(lease_s, approved_only, prompts)^
-- The longest waiting evaluation whose golden set may be used, ours until its lease ends.
UPDATE evaluation SET lease_until = now() + make_interval(secs => :lease_s), attempts = attempts + 1,
    started_at = coalesce(started_at, now())
WHERE (workspace, id) = (
    SELECT e.workspace, e.id FROM evaluation AS e
    JOIN dataset AS d ON (d.workspace, d.urn, d.version) = (e.workspace, e.golden_urn, e.golden_version)
    WHERE e.state = 'waiting' AND (e.lease_until IS NULL OR e.lease_until < now())
      AND (d.decision IS NOT NULL OR NOT CAST(:approved_only AS boolean))
      AND (e.model IS NOT NULL) = CAST(:prompts AS boolean)
    ORDER BY e.requested_at LIMIT 1 FOR UPDATE OF e SKIP LOCKED
)
RETURNING *;

-- name: renew_evaluation(workspace, id, lease_s)!
-- Hold an evaluation longer.
UPDATE evaluation SET lease_until = now() + make_interval(secs => :lease_s)
WHERE workspace = :workspace AND id = :id AND lease_until IS NOT NULL;

-- name: renew_shard(workspace, evaluation_id, index, lease_s)!
-- Hold a shard longer.
UPDATE shard SET lease_until = now() + make_interval(secs => :lease_s)
WHERE workspace = :workspace AND evaluation_id = :evaluation_id AND index = :index AND lease_until IS NOT NULL;

-- name: release_evaluation(workspace, id, forgiven)!
-- Somebody else may try at once; as many of its attempts are forgiven.
UPDATE evaluation SET lease_until = NULL, attempts = attempts - :forgiven WHERE workspace = :workspace AND id = :id;

-- name: release_shard(workspace, evaluation_id, index, forgiven)!
-- Somebody else may try at once; as many of its attempts are forgiven.
UPDATE shard SET lease_until = NULL, attempts = attempts - :forgiven
WHERE workspace = :workspace AND evaluation_id = :evaluation_id AND index = :index;

-- name: plan_evaluation(workspace, id, rows)!
-- The evaluation is cut into shards.
UPDATE evaluation SET state = 'running', rows = :rows, attempts = 0, lease_until = NULL
WHERE workspace = :workspace AND id = :id AND state = 'waiting';

-- name: add_shard(workspace, evaluation_id, index, start, stop)!
-- One piece of work.
INSERT INTO shard (workspace, evaluation_id, index, start, stop) VALUES (:workspace, :evaluation_id, :index, :start, :stop)
ON CONFLICT DO NOTHING;

-- name: keep_shard(workspace, evaluation_id, index, result)!
-- What the template made of the shard's rows.
UPDATE shard SET result = :result, lease_until = NULL
WHERE workspace = :workspace AND evaluation_id = :evaluation_id AND index = :index AND result IS NULL;

-- name: shard_results(workspace, evaluation_id)
-- What all shards made, in order.
SELECT result FROM shard WHERE workspace = :workspace AND evaluation_id = :evaluation_id ORDER BY index;

-- name: finish_evaluation(workspace, id, state, rows, report, measures, code, reason, ended_at)$
-- True when this ends the evaluation; false when it was ended before. Its shards are no longer needed then.
WITH ended AS (
    UPDATE evaluation SET state = :state, rows = coalesce(:rows, rows), report = :report, measures = :measures,
        code = :code, reason = :reason, ended_at = :ended_at, lease_until = NULL
    WHERE workspace = :workspace AND id = :id AND state IN ('waiting', 'running')
    RETURNING workspace, id
), dropped AS (
    DELETE FROM shard AS s USING ended AS e WHERE (s.workspace, s.evaluation_id) = (e.workspace, e.id)
)
SELECT true FROM ended;

-- name: evaluation(workspace, id)^
-- One evaluation with how far it is.
SELECT e.*, (SELECT count(*) FROM shard AS s WHERE (s.workspace, s.evaluation_id) = (e.workspace, e.id)) AS shards,
    (SELECT count(*) FROM shard AS s WHERE (s.workspace, s.evaluation_id) = (e.workspace, e.id) AND s.result IS NOT NULL) AS shards_done
FROM evaluation AS e WHERE e.workspace = :workspace AND e.id = :id;

-- name: evaluations(workspace, urn, version, after_at, after_id, most)
-- Evaluations, newest first, of one asset or version where named.
SELECT e.*, 0 AS shards, 0 AS shards_done FROM evaluation AS e
WHERE e.workspace = :workspace
  AND (CAST(:urn AS text) IS NULL OR e.urn = :urn)
  AND (CAST(:version AS integer) IS NULL OR e.version = :version)
  AND (CAST(:after_at AS timestamptz) IS NULL OR (e.requested_at, e.id) < (:after_at, CAST(:after_id AS uuid)))
ORDER BY e.requested_at DESC, e.id DESC LIMIT :most;
