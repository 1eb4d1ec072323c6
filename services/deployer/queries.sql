-- name: add_asset(workspace, urn, version, digest, kind, task, content)!
-- Keep a registered version; a version is immutable, so a second word on it changes nothing.
INSERT INTO asset (workspace, urn, version, digest, kind, task, content)
VALUES (:workspace, :urn, :version, :digest, :kind, :task, :content)
ON CONFLICT DO NOTHING;

-- name: asset(workspace, urn, version)^
-- One version.
SELECT * FROM asset WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: add_gate(workspace, gate_id, urn, version, verdict, reason, binding, decided_at)!
-- Keep a verdict.
INSERT INTO gate (workspace, gate_id, urn, version, verdict, reason, binding, decided_at)
VALUES (:workspace, :gate_id, :urn, :version, :verdict, :reason, :binding, :decided_at);

-- name: newest_gate(workspace, urn, version, binding)^
-- The verdict in force on what a binding names.
SELECT * FROM gate WHERE workspace = :workspace AND urn = :urn AND version = :version AND binding = :binding
ORDER BY number DESC LIMIT 1;

-- name: add_approval(workspace, approval_id, urn, version, decision, reason, statement, decided_at)!
-- Keep a decision.
INSERT INTO approval (workspace, approval_id, urn, version, decision, reason, statement, decided_at)
VALUES (:workspace, :approval_id, :urn, :version, :decision, :reason, :statement, :decided_at);

-- name: newest_approval(workspace, urn, version)^
-- The decision in force about a version.
SELECT * FROM approval WHERE workspace = :workspace AND urn = :urn AND version = :version ORDER BY number DESC LIMIT 1;

-- name: keep_traffic(workspace, group_name, revision, arms)!
-- A group's newest revision; an older one changes nothing.
INSERT INTO traffic (workspace, group_name, revision, arms) VALUES (:workspace, :group_name, :revision, :arms)
ON CONFLICT (workspace, group_name) DO UPDATE SET revision = excluded.revision, arms = excluded.arms
WHERE traffic.revision < excluded.revision;

-- name: groups_of(workspace, urn, version)
-- The groups that route to a version, in whatever role.
SELECT group_name FROM traffic
WHERE workspace = :workspace
  AND EXISTS (SELECT 1 FROM jsonb_array_elements(arms) AS arm
              WHERE arm ->> 'urn' = :urn AND (arm ->> 'version')::integer = :version)
ORDER BY group_name;

-- name: add_deployment(workspace, deployment_id, request_id, request, event_id, urn, version, digest, target, parameters, requested_by, requested_at, correlation_id, causation_id, traceparent)!
-- Take a request in; one whose request_id was used changes nothing.
INSERT INTO deployment (workspace, deployment_id, request_id, request, event_id, urn, version, digest, target, parameters, requested_by,
                        state, requested_at, correlation_id, causation_id, traceparent)
VALUES (:workspace, :deployment_id, :request_id, :request, :event_id, :urn, :version, :digest, :target, :parameters, :requested_by,
        'requested', :requested_at, :correlation_id, :causation_id, :traceparent)
ON CONFLICT (workspace, request_id) DO NOTHING;

-- name: deployment(workspace, deployment_id)^
-- One deployment.
SELECT * FROM deployment WHERE workspace = :workspace AND deployment_id = :deployment_id;

-- name: lock_deployment(workspace, deployment_id)^
-- One deployment, held until this transaction ends.
SELECT * FROM deployment WHERE workspace = :workspace AND deployment_id = :deployment_id FOR UPDATE;

-- name: deployment_of_request(workspace, request_id)^
-- The deployment that a request led to.
SELECT * FROM deployment WHERE workspace = :workspace AND request_id = :request_id;

-- name: deployments(workspace, urn, state, before, most)
-- Deployments, newest first.
SELECT * FROM deployment
WHERE workspace = :workspace AND number < :before
  AND (CAST(:urn AS text) IS NULL OR urn = :urn) AND (CAST(:state AS text) IS NULL OR state = :state)
ORDER BY number DESC LIMIT :most;

-- name: live(workspace, urn, version, target, deployment_id)^
-- The newest other deployment of the same version on the same target that stands.
SELECT * FROM deployment
WHERE workspace = :workspace AND urn = :urn AND version = :version AND target = :target
  AND deployment_id <> :deployment_id AND state IN ('completed', 'restoring')
ORDER BY number DESC LIMIT 1;

-- name: lock_claims()!
-- One claim at a time until this transaction ends, so that two workers never take the same version.
SELECT pg_advisory_xact_lock(hashtextextended('deployer claims', 0));

-- name: claim(lease, lease_s, most)
-- Take the oldest work that is due and nobody's. Of one version on one target, only one is worked on at a time.
UPDATE deployment SET lease = :lease, leased_until = clock_timestamp() + make_interval(secs => :lease_s)
WHERE deployment_id IN (
    SELECT d.deployment_id FROM deployment AS d
    WHERE d.state IN ('requested', 'approved', 'bundled', 'loaded', 'restoring', 'undeploying')
      AND d.due_at <= clock_timestamp() AND (d.leased_until IS NULL OR d.leased_until < clock_timestamp())
      AND NOT EXISTS (
          SELECT 1 FROM deployment AS other
          WHERE other.workspace = d.workspace AND other.urn = d.urn AND other.version = d.version
            AND other.target = d.target AND other.deployment_id <> d.deployment_id
            AND (other.leased_until >= clock_timestamp()
                 OR (other.number < d.number AND other.due_at <= clock_timestamp()
                     AND other.state IN ('requested', 'approved', 'bundled', 'loaded', 'restoring', 'undeploying'))))
    ORDER BY d.due_at LIMIT :most FOR UPDATE OF d SKIP LOCKED)
RETURNING *;

-- name: renew(leases, lease_s)!
-- Go on holding what is being worked on.
UPDATE deployment SET leased_until = clock_timestamp() + make_interval(secs => :lease_s)
WHERE lease = ANY(CAST(:leases AS uuid[])) AND leased_until >= clock_timestamp();

-- name: release(leases)!
-- Give work back to whoever wants it.
UPDATE deployment SET lease = NULL, leased_until = NULL WHERE lease = ANY(CAST(:leases AS uuid[]));

-- name: advance(deployment_id, lease, state, approval_id, bundle, model_name, endpoint)!
-- One step further, by the holder of the lease.
UPDATE deployment SET state = :state, approval_id = coalesce(:approval_id, approval_id), bundle = coalesce(:bundle, bundle),
       model_name = coalesce(:model_name, model_name), endpoint = coalesce(:endpoint, endpoint), tries = 0
WHERE deployment_id = :deployment_id AND lease = :lease AND leased_until >= clock_timestamp();

-- name: finish(deployment_id, lease, state, code, reason, ended_at)!
-- The work is over, by the holder of the lease.
UPDATE deployment SET state = :state, code = :code, reason = :reason, ended_at = :ended_at, tries = 0, lease = NULL,
       leased_until = NULL, complaint = NULL
WHERE deployment_id = :deployment_id AND lease = :lease AND leased_until >= clock_timestamp();

-- name: postpone(deployment_id, lease, tries, wait_s, code, reason)!
-- Try again later, by the holder of the lease.
UPDATE deployment SET tries = :tries, due_at = clock_timestamp() + make_interval(secs => :wait_s), code = :code, reason = :reason,
       lease = NULL, leased_until = NULL
WHERE deployment_id = :deployment_id AND lease = :lease AND leased_until >= clock_timestamp();

-- name: order_undeploying(deployment_id, withdrawn_by, correlation_id, causation_id, traceparent)!
-- A completed deployment is to be taken away, because of what is happening now.
UPDATE deployment SET state = 'undeploying', withdrawn_by = :withdrawn_by, due_at = clock_timestamp(), tries = 0, correlation_id = :correlation_id, causation_id = :causation_id,
       traceparent = :traceparent
WHERE deployment_id = :deployment_id AND state = 'completed';

-- name: restore(deployment_id)!
-- A completed deployment that its target has lost; the story it belongs to stays the same.
UPDATE deployment SET state = 'restoring', due_at = clock_timestamp(), tries = 0 WHERE deployment_id = :deployment_id AND state = 'completed';

-- name: standing(target)
-- What should be on a target now, of every workspace: each version once, by its newest deployment.
SELECT DISTINCT ON (workspace, urn, version) * FROM deployment
WHERE target = :target AND state = 'completed'
ORDER BY workspace, urn, version, number DESC;

-- name: running()
-- Every completed deployment with the decision in force about its version, of every workspace.
SELECT d.*, a.approval_id AS decided_id, a.decision, a.reason AS decision_reason, a.statement
FROM deployment AS d LEFT JOIN LATERAL (
    SELECT * FROM approval WHERE workspace = d.workspace AND urn = d.urn AND version = d.version
    ORDER BY number DESC LIMIT 1) AS a ON true
WHERE d.state = 'completed' ORDER BY d.workspace, d.number;

-- name: complain(deployment_id, complaint)!
-- What is wrong with a completed deployment, or that nothing is any more; changes nothing that is said already.
UPDATE deployment SET complaint = :complaint
WHERE deployment_id = :deployment_id AND state = 'completed' AND complaint IS DISTINCT FROM CAST(:complaint AS text);

-- name: strays(target)
-- Names that no deployment wants on a target any more, of every workspace.
SELECT DISTINCT model_name, version FROM deployment AS d
WHERE target = :target AND state IN ('failed', 'undeployed') AND model_name IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM deployment AS other
                  WHERE other.workspace = d.workspace AND other.urn = d.urn AND other.version = d.version
                    AND other.target = d.target AND other.state NOT IN ('failed', 'undeployed'));

-- name: add_step(workspace, deployment_id, step, detail, at)!
-- Keep what was done.
INSERT INTO step (workspace, deployment_id, step, detail, at) VALUES (:workspace, :deployment_id, :step, :detail, :at);

-- name: steps(workspace, deployment_id)
-- What was done, in order.
SELECT step, detail, at FROM step WHERE workspace = :workspace AND deployment_id = :deployment_id ORDER BY number;
