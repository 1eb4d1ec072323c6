-- name: add_asset(workspace, urn, version, digest, kind, task, artefact_digest, prompts, golden_set, author, registered_at)!
-- Keep a registered version; a version is immutable, so a second word on it changes nothing.
INSERT INTO asset (workspace, urn, version, digest, kind, task, artefact_digest, prompts, golden_set, author, registered_at)
VALUES (:workspace, :urn, :version, :digest, :kind, :task, :artefact_digest, :prompts, :golden_set, :author, :registered_at)
ON CONFLICT DO NOTHING;

-- name: asset(workspace, urn, version)^
-- One version.
SELECT * FROM asset WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: lock_asset(workspace, urn, version)^
-- One version, held until this transaction ends, so that decisions about it come one after the other.
SELECT * FROM asset WHERE workspace = :workspace AND urn = :urn AND version = :version FOR UPDATE;

-- name: add_dataset(workspace, urn, version, digest, sensitive, author, registered_at)!
-- Keep a registered dataset version.
INSERT INTO dataset (workspace, urn, version, digest, sensitive, author, registered_at)
VALUES (:workspace, :urn, :version, :digest, :sensitive, :author, :registered_at)
ON CONFLICT DO NOTHING;

-- name: dataset(workspace, urn, version)^
-- One dataset version.
SELECT * FROM dataset WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: lock_dataset(workspace, urn, version)^
-- One dataset version, held until this transaction ends.
SELECT * FROM dataset WHERE workspace = :workspace AND urn = :urn AND version = :version FOR UPDATE;

-- name: datasets(workspace, status, after_at, after_urn, after_version, most)
-- Dataset versions with the newest decision about each, newest version first.
SELECT dataset.urn, dataset.version, dataset.digest, dataset.author, dataset.registered_at,
       decision.decision, decision.approver, decision.reason, decision.decided_at
FROM dataset
LEFT JOIN LATERAL (
    SELECT * FROM dataset_approval AS d
    WHERE d.workspace = dataset.workspace AND d.urn = dataset.urn AND d.version = dataset.version
    ORDER BY d.id DESC LIMIT 1
) AS decision ON true
WHERE dataset.workspace = :workspace
  AND (CAST(:status AS text) IS NULL OR coalesce(decision.decision, 'pending') = :status)
  AND (CAST(:after_at AS timestamptz) IS NULL
       OR (dataset.registered_at, dataset.urn, dataset.version) < (:after_at, CAST(:after_urn AS text), CAST(:after_version AS integer)))
ORDER BY dataset.registered_at DESC, dataset.urn DESC, dataset.version DESC LIMIT :most;

-- name: lock_gate_policy(workspace, name)!
-- One publication of a gate at a time, until this transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended(concat('gate_policy ', CAST(:workspace AS text), ' ', CAST(:name AS text)), 0));

-- name: gate_policy(workspace, name, at)^
-- The newest version of a gate, or the newest at a time.
SELECT * FROM gate_policy
WHERE workspace = :workspace AND name = :name AND (CAST(:at AS timestamptz) IS NULL OR published_at <= :at)
ORDER BY number DESC LIMIT 1;

-- name: gate_policy_number(workspace, name, number)^
-- One version of a gate.
SELECT * FROM gate_policy WHERE workspace = :workspace AND name = :name AND number = :number;

-- name: gate_policies(workspace, name)
-- Every version of a gate, newest first.
SELECT * FROM gate_policy WHERE workspace = :workspace AND name = :name ORDER BY number DESC;

-- name: gate_names(workspace)
-- The gates that the workspace has published.
SELECT DISTINCT name FROM gate_policy WHERE workspace = :workspace ORDER BY name;

-- name: add_gate_policy(workspace, name, number, document, digest, actor, reason, published_at)!
-- Publish a version of a gate.
INSERT INTO gate_policy (workspace, name, number, document, digest, actor, reason, published_at)
VALUES (:workspace, :name, :number, :document, :digest, :actor, :reason, :published_at);

-- name: add_gate(workspace, gate_id, urn, version, evaluation_id, report, verdict, rules, reason, policy, policy_version, binding, expires_at, decided_at)!
-- Keep a verdict.
INSERT INTO gate (workspace, gate_id, urn, version, evaluation_id, report, verdict, rules, reason, policy, policy_version, binding, expires_at,
                  decided_at)
VALUES (:workspace, :gate_id, :urn, :version, :evaluation_id, :report, :verdict, :rules, :reason, :policy, :policy_version, :binding,
        :expires_at, :decided_at);

-- name: newest_gate(workspace, urn, version)^
-- The verdict in force about a version.
SELECT * FROM gate WHERE workspace = :workspace AND urn = :urn AND version = :version ORDER BY id DESC LIMIT 1;

-- name: gates_of(workspace, urn, version)
-- Every verdict about a version, newest first.
SELECT * FROM gate WHERE workspace = :workspace AND urn = :urn AND version = :version ORDER BY id DESC;

-- name: add_approval(workspace, approval_id, gate_id, urn, version, decision, approver, author, reason, binding, statement, expires_at, decided_at)!
-- Keep a decision.
INSERT INTO approval (workspace, approval_id, gate_id, urn, version, decision, approver, author, reason, binding, statement, expires_at,
                      decided_at)
VALUES (:workspace, :approval_id, :gate_id, :urn, :version, :decision, :approver, :author, :reason, :binding, :statement, :expires_at,
        :decided_at);

-- name: newest_approval(workspace, urn, version)^
-- The last decision about a version.
SELECT * FROM approval WHERE workspace = :workspace AND urn = :urn AND version = :version ORDER BY id DESC LIMIT 1;

-- name: approval(workspace, approval_id)^
-- One decision.
SELECT * FROM approval WHERE workspace = :workspace AND approval_id = :approval_id;

-- name: approvals_of(workspace, urn, version)
-- Every decision about a version, newest first.
SELECT * FROM approval WHERE workspace = :workspace AND urn = :urn AND version = :version ORDER BY id DESC;

-- name: decisions(workspace, decision, after, most)
-- Decisions, newest first; of one kind, when asked.
SELECT * FROM approval
WHERE workspace = :workspace AND (CAST(:decision AS text) IS NULL OR decision = :decision)
  AND (CAST(:after AS bigint) IS NULL OR id < :after)
ORDER BY id DESC LIMIT :most;

-- name: pending(workspace, now, after, most)
-- The inbox: versions whose newest gate lets a person decide and that no decision settles (domain.standing), newest first.
SELECT gate.*, asset.digest, asset.author, asset.kind, asset.task FROM gate
JOIN asset ON asset.workspace = gate.workspace AND asset.urn = gate.urn AND asset.version = gate.version
LEFT JOIN LATERAL (
    SELECT * FROM approval AS a WHERE a.workspace = gate.workspace AND a.urn = gate.urn AND a.version = gate.version
    ORDER BY a.id DESC LIMIT 1
) AS last ON true
WHERE gate.workspace = :workspace AND gate.verdict IN ('pass', 'review')
  AND NOT EXISTS (SELECT FROM gate AS newer WHERE newer.workspace = gate.workspace AND newer.urn = gate.urn
                  AND newer.version = gate.version AND newer.id > gate.id)
  AND NOT coalesce(last.decision = 'rejected' AND last.gate_id = gate.gate_id, false)
  AND NOT coalesce(last.decision = 'approved' AND last.binding = gate.binding AND last.expires_at > :now, false)
  AND (CAST(:after AS bigint) IS NULL OR gate.id < :after)
ORDER BY gate.id DESC LIMIT :most;

-- name: add_dataset_approval(workspace, urn, version, decision, approver, reason, decided_at)!
-- Keep a decision about a dataset version.
INSERT INTO dataset_approval (workspace, urn, version, decision, approver, reason, decided_at)
VALUES (:workspace, :urn, :version, :decision, :approver, :reason, :decided_at);

-- name: newest_dataset_approval(workspace, urn, version)^
-- The last decision about a dataset version.
SELECT * FROM dataset_approval WHERE workspace = :workspace AND urn = :urn AND version = :version ORDER BY id DESC LIMIT 1;

-- name: add_arrival(workspace, at, event_id, source, type, key, event_time, topic, partition, offset, trace_id, correlation_id, causation_id, proof, data)!
-- Take an event into the ledger; the sealer puts it into the chain.
INSERT INTO ledger_arrival (workspace, at, event_id, source, type, key, event_time, topic, partition, "offset", trace_id,
                            correlation_id, causation_id, proof, data)
VALUES (:workspace, :at, :event_id, :source, :type, :key, :event_time, :topic, :partition, :offset, :trace_id,
        :correlation_id, :causation_id, :proof, :data);

-- name: waiting_workspaces()
-- Workspaces with events that are not in the chain yet.
SELECT DISTINCT workspace FROM ledger_arrival;

-- name: seal(workspace, most)$
-- Put waiting events into the chain; how many.
SELECT seal_ledger(:workspace, :most);

-- name: ledger_head(workspace)^
-- Index and hash of the newest entry.
SELECT index, hash FROM ledger_head WHERE workspace = :workspace;

-- name: ledger_entry(workspace, index)^
-- One entry.
SELECT *, ledger_time(at) AS at_text, ledger_time(event_time) AS event_time_text FROM ledger
WHERE workspace = :workspace AND index = :index;

-- name: ledger_entries(workspace, after, key, type, trace, most)
-- Entries in order, of one key, type or trace when asked.
SELECT *, ledger_time(at) AS at_text, ledger_time(event_time) AS event_time_text FROM ledger
WHERE workspace = :workspace AND index > :after
  AND (CAST(:key AS text) IS NULL OR key = :key)
  AND (CAST(:type AS text) IS NULL OR type = :type)
  AND (CAST(:trace AS text) IS NULL OR trace_id = :trace)
ORDER BY index LIMIT :most;

-- name: add_waiver(workspace, waiver_id, urn, version, digest, measure, observed, reason, proposer, proposed_at, expires_at)!
-- Keep a proposal.
INSERT INTO waiver (workspace, waiver_id, urn, version, digest, measure, observed, reason, proposer, proposed_at, expires_at)
VALUES (:workspace, :waiver_id, :urn, :version, :digest, :measure, :observed, :reason, :proposer, :proposed_at, :expires_at);

-- name: lock_waiver(workspace, waiver_id)!
-- One decision about a waiver at a time, until this transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended(concat('waiver ', CAST(:workspace AS text), ' ', CAST(:waiver_id AS text)), 0));

-- name: waiver(workspace, waiver_id)^
-- A waiver with the last decision about it.
SELECT waiver.*, last.decision, last.actor AS decider, last.reason AS decision_reason, last.decided_at, signed.statement,
       signed.actor AS signer
FROM waiver
LEFT JOIN LATERAL (SELECT * FROM waiver_decision AS d WHERE d.workspace = waiver.workspace AND d.waiver_id = waiver.waiver_id
                   ORDER BY d.id DESC LIMIT 1) AS last ON true
LEFT JOIN waiver_decision AS signed ON signed.workspace = waiver.workspace AND signed.waiver_id = waiver.waiver_id
                                   AND signed.decision = 'signed'
WHERE waiver.workspace = :workspace AND waiver.waiver_id = :waiver_id;

-- name: waivers(workspace, urn, status, now, after, most)
-- Waivers with the last decision about each, newest first; `expired` are signed ones whose time is over.
SELECT * FROM (
    SELECT waiver.*, last.decision, last.actor AS decider, last.reason AS decision_reason, last.decided_at, signed.statement,
           signed.actor AS signer,
           CASE WHEN last.decision = 'signed' AND waiver.expires_at <= :now THEN 'expired'
                ELSE coalesce(last.decision, 'proposed') END AS status
    FROM waiver
    LEFT JOIN LATERAL (SELECT * FROM waiver_decision AS d WHERE d.workspace = waiver.workspace AND d.waiver_id = waiver.waiver_id
                       ORDER BY d.id DESC LIMIT 1) AS last ON true
    LEFT JOIN waiver_decision AS signed ON signed.workspace = waiver.workspace AND signed.waiver_id = waiver.waiver_id
                                       AND signed.decision = 'signed'
    WHERE waiver.workspace = :workspace AND (CAST(:urn AS text) IS NULL OR waiver.urn = :urn)) AS found
WHERE (CAST(:status AS text) IS NULL OR found.status = :status) AND (CAST(:after AS bigint) IS NULL OR found.id < :after)
ORDER BY found.id DESC LIMIT :most;

-- name: waivers_in_force(workspace, urn, version, now)
-- Signed waivers of a version that neither expired nor were withdrawn, the longest first.
SELECT waiver.*, signed.actor AS signer FROM waiver
JOIN waiver_decision AS signed ON signed.workspace = waiver.workspace AND signed.waiver_id = waiver.waiver_id
                              AND signed.decision = 'signed'
WHERE waiver.workspace = :workspace AND waiver.urn = :urn AND waiver.version = :version AND waiver.expires_at > :now
  AND NOT EXISTS (SELECT FROM waiver_decision AS d WHERE d.workspace = waiver.workspace AND d.waiver_id = waiver.waiver_id
                  AND d.decision = 'withdrawn')
ORDER BY waiver.expires_at DESC;

-- name: add_waiver_decision(workspace, waiver_id, decision, actor, reason, statement, decided_at)!
-- What became of a waiver.
INSERT INTO waiver_decision (workspace, waiver_id, decision, actor, reason, statement, decided_at)
VALUES (:workspace, :waiver_id, :decision, :actor, :reason, :statement, :decided_at);

-- name: lock_protection(workspace)!
-- One publication of what is protected at a time, until this transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended(concat('protection ', CAST(:workspace AS text)), 0));

-- name: protection(workspace, at)^
-- What is protected, or was at a time.
SELECT * FROM protection WHERE workspace = :workspace AND (CAST(:at AS timestamptz) IS NULL OR published_at <= :at)
ORDER BY number DESC LIMIT 1;

-- name: protections(workspace)
-- Every version of it, newest first.
SELECT * FROM protection WHERE workspace = :workspace ORDER BY number DESC LIMIT 500;

-- name: add_protection(workspace, number, document, digest, actor, reason, published_at)!
-- Publish what is protected from now on.
INSERT INTO protection (workspace, number, document, digest, actor, reason, published_at)
VALUES (:workspace, :number, :document, :digest, :actor, :reason, :published_at);
