-- name: stand_ins(workspace, numbers)
-- The assets of some versions, each by the version that is best taken: the one in production, else the newest that is not
-- yanked, and a retired one only where there is no other.
SELECT taken.urn, taken.version FROM (
    SELECT DISTINCT urn FROM version WHERE workspace = :workspace AND number = ANY(:numbers::bigint[])) AS asked,
LATERAL (
    SELECT n.urn, n.version FROM version_now AS n LEFT JOIN LATERAL (
        SELECT after FROM stage_move AS m WHERE m.workspace = :workspace AND m.urn = n.urn AND m.version = n.version
        ORDER BY revision DESC LIMIT 1) AS last ON true
    WHERE n.workspace = :workspace AND n.urn = asked.urn AND n.yanked_at IS NULL
    ORDER BY (last.after = 'production') IS TRUE DESC, (last.after = 'retired') IS TRUE, n.version DESC LIMIT 1) AS taken;

-- name: assets_of(workspace, numbers)
-- Which assets some versions are of.
SELECT number, urn FROM version WHERE workspace = :workspace AND number = ANY(:numbers::bigint[]);

-- name: insert_intent(workspace, intent_id, team, kind, task, wish, candidates, who, who_proven, created_at, expires_at)!
-- What a team described and what it was answered.
INSERT INTO intent (workspace, intent_id, team, kind, task, wish, candidates, who, who_proven, created_at, expires_at)
VALUES (:workspace, :intent_id, :team, :kind, :task, :wish, :candidates, :who, :who_proven, :created_at, :expires_at);

-- name: intent(workspace, intent_id)^
-- One intent with its outcome.
SELECT i.*, o.outcome, o.binding_id, o.why_not, o.reason, o.who AS decided_by, o.who_proven AS decided_by_proven, o.at AS decided_at
FROM intent AS i LEFT JOIN intent_outcome AS o USING (workspace, intent_id)
WHERE workspace = :workspace AND intent_id = :intent_id;

-- name: hold_intent(workspace, intent_id)!
-- Whoever else ends this intent waits until this transaction is over.
SELECT pg_advisory_xact_lock(hashtextextended(:workspace || :intent_id, 0));

-- name: intents(workspace, team, before, before_id, most)
-- Intents, newest first, below one of them.
SELECT i.*, o.outcome, o.binding_id, o.why_not, o.reason, o.who AS decided_by, o.who_proven AS decided_by_proven, o.at AS decided_at
FROM intent AS i LEFT JOIN intent_outcome AS o USING (workspace, intent_id)
WHERE workspace = :workspace AND (:team::text IS NULL OR team = :team)
AND (:before::timestamptz IS NULL OR (created_at, intent_id) < (:before, :before_id::uuid))
ORDER BY created_at DESC, intent_id DESC LIMIT :most;

-- name: decide_intent(workspace, intent_id, outcome, binding_id, why_not, reason, who, who_proven, at)!
-- How an intent ended.
INSERT INTO intent_outcome (workspace, intent_id, outcome, binding_id, why_not, reason, who, who_proven, at)
VALUES (:workspace, :intent_id, :outcome, :binding_id, :why_not, :reason, :who, :who_proven, :at);

-- name: insert_binding(workspace, binding_id, urn, version, consumer, purpose, intent_id, who, who_proven, at)!
-- A consumer uses a version from now on.
INSERT INTO binding (workspace, binding_id, urn, version, consumer, purpose, intent_id, who, who_proven, at)
VALUES (:workspace, :binding_id, :urn, :version, :consumer, :purpose, :intent_id, :who, :who_proven, :at);

-- name: binding(workspace, binding_id)^
-- One binding, released or not.
SELECT b.*, r.at AS released_at, r.reason AS release_reason, r.who AS released_by
FROM binding AS b LEFT JOIN binding_release AS r USING (workspace, binding_id)
WHERE workspace = :workspace AND binding_id = :binding_id;

-- name: bound(workspace, urn, version, consumer)^
-- The binding of a consumer to a version that holds.
SELECT b.*, NULL::timestamptz AS released_at, NULL::text AS release_reason, NULL::text AS released_by FROM binding AS b
WHERE workspace = :workspace AND urn = :urn AND version = :version AND consumer = :consumer
AND NOT EXISTS (SELECT FROM binding_release AS r WHERE r.workspace = :workspace AND r.binding_id = b.binding_id) LIMIT 1;

-- name: bindings(workspace, urn, version, consumer, active, before, before_id, most)
-- Bindings of an asset, of a version, of a consumer, or all; newest first, below one of them.
SELECT b.*, r.at AS released_at, r.reason AS release_reason, r.who AS released_by
FROM binding AS b LEFT JOIN binding_release AS r USING (workspace, binding_id)
WHERE workspace = :workspace AND (:urn::text IS NULL OR urn = :urn) AND (:version::integer IS NULL OR version = :version)
AND (:consumer::text IS NULL OR consumer = :consumer) AND (NOT :active::boolean OR r.at IS NULL)
AND (:before::timestamptz IS NULL OR (b.at, binding_id) < (:before, :before_id::uuid))
ORDER BY b.at DESC, binding_id DESC LIMIT :most;

-- name: release(workspace, binding_id, reason, who, who_proven, at)$
-- A consumer uses a version no longer; NULL when it was released before.
INSERT INTO binding_release (workspace, binding_id, reason, who, who_proven, at)
VALUES (:workspace, :binding_id, :reason, :who, :who_proven, :at) ON CONFLICT DO NOTHING RETURNING true;

-- name: figures(workspace, since, until)
-- Intents of a period by team and task, and how they ended.
SELECT team, task, count(*) AS intents, count(*) FILTER (WHERE o.outcome = 'reuse') AS reused,
       count(*) FILTER (WHERE o.outcome = 'build') AS built, count(*) FILTER (WHERE o.outcome IS NULL) AS open
FROM intent AS i LEFT JOIN intent_outcome AS o USING (workspace, intent_id)
WHERE workspace = :workspace AND created_at >= :since AND created_at < :until
GROUP BY team, task ORDER BY intents DESC, team, task LIMIT 1000;

-- name: reused_most(workspace, since, until, most)
-- The assets that were bound most often in a period, and how many still are.
SELECT urn, count(*) AS bindings, count(DISTINCT consumer) AS consumers, count(*) FILTER (WHERE r.at IS NULL) AS active
FROM binding AS b LEFT JOIN binding_release AS r USING (workspace, binding_id)
WHERE workspace = :workspace AND b.at >= :since AND b.at < :until
GROUP BY urn ORDER BY bindings DESC, urn LIMIT :most;
