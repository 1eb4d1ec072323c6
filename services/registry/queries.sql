-- name: lock_asset(workspace, urn, kind, name, at)$
-- The asset's row, made if need be and locked until commit; returns its last version number.
INSERT INTO asset (workspace, urn, kind, name, created_at) VALUES (:workspace, :urn, :kind, :name, :at)
ON CONFLICT (workspace, urn) DO UPDATE SET last_version = asset.last_version
RETURNING last_version;

-- name: take_number(workspace, urn)$
-- The next version number of a locked asset.
UPDATE asset SET last_version = last_version + 1 WHERE workspace = :workspace AND urn = :urn RETURNING last_version;

-- name: insert_version(workspace, urn, version, digest, content, artefact_digest, artefact_size, tags, description, metrics, author, author_proven, submission_id, registered_at)$
-- A new version; returns its number in the order of registration.
INSERT INTO version (workspace, urn, version, digest, content, artefact_digest, artefact_size, tags, description, metrics,
                     author, author_proven, submission_id, registered_at)
VALUES (:workspace, :urn, :version, :digest, :content, :artefact_digest, :artefact_size, :tags, :description, :metrics,
        :author, :author_proven, :submission_id, :registered_at)
RETURNING number;

-- name: version_by_digest(workspace, urn, digest)^
-- The version of an asset that has this content.
SELECT * FROM version WHERE workspace = :workspace AND urn = :urn AND digest = :digest;

-- name: version(workspace, urn, version)^
-- One version.
SELECT * FROM version WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: versions_before(workspace, urn, before, most)
-- Versions of an asset, newest first, below a version number.
SELECT * FROM version WHERE workspace = :workspace AND urn = :urn AND version < :before ORDER BY version DESC LIMIT :most;

-- name: versions_by_number(workspace, numbers)
-- Versions by their order of registration, newest first.
SELECT * FROM version WHERE workspace = :workspace AND number = ANY(:numbers::bigint[]) ORDER BY number DESC;

-- name: asset(workspace, urn)^
-- One asset.
SELECT * FROM asset WHERE workspace = :workspace AND urn = :urn;

-- name: twins(workspace, artefact_digest, urn)
-- Versions of other assets that rest on the same bytes.
SELECT urn, version FROM version WHERE workspace = :workspace AND artefact_digest = :artefact_digest AND urn <> :urn
ORDER BY number LIMIT 100;

-- name: insert_terms(workspace, number, terms, text)!
-- What search finds a version by: exact terms, and the words of its text.
INSERT INTO term (workspace, term, number)
SELECT :workspace::text, found, :number::bigint FROM unnest(:terms::text[]) AS found
UNION
SELECT :workspace::text, 'word:' || lexeme, :number::bigint
FROM unnest(tsvector_to_array(to_tsvector('english', :text))) AS lexeme
WHERE length(lexeme) <= 500
ON CONFLICT DO NOTHING;

-- name: swap_term(workspace, number, before, after)!
-- Put one exact term in the place of another.
WITH gone AS (DELETE FROM term WHERE workspace = :workspace AND term = :before AND number = :number)
INSERT INTO term (workspace, term, number) VALUES (:workspace, :after, :number) ON CONFLICT DO NOTHING;

-- name: insert_submission(workspace, submission_id, event_id, urn, request, document, author, author_proven, state, due_at, correlation_id, causation_id, traceparent, received_at)$
-- A submission as it came in; NULL when its id was taken before.
INSERT INTO submission (workspace, submission_id, event_id, urn, request, document, author, author_proven, state, due_at,
                        correlation_id, causation_id, traceparent, received_at)
VALUES (:workspace, :submission_id, :event_id, :urn, :request, :document, :author, :author_proven, :state, :due_at,
        :correlation_id, :causation_id, :traceparent, :received_at)
ON CONFLICT (workspace, submission_id) DO NOTHING RETURNING true;

-- name: submission(workspace, submission_id)^
-- One submission.
SELECT * FROM submission WHERE workspace = :workspace AND submission_id = :submission_id;

-- name: lock_submission(workspace, submission_id)^
-- One submission, locked until commit.
SELECT * FROM submission WHERE workspace = :workspace AND submission_id = :submission_id FOR UPDATE;

-- name: decide_submission(workspace, submission_id, state, version, code, reason, decided_at)!
-- What became of a submission.
UPDATE submission SET state = :state, version = :version, code = :code, reason = :reason, decided_at = :decided_at, lease = NULL
WHERE workspace = :workspace AND submission_id = :submission_id;

-- name: claim_submission(lease, until)^
-- Work for the worker: the submission that is due longest, held by a lease. Runs over all workspaces.
UPDATE submission SET lease = :lease, due_at = :until, attempts = attempts + 1
WHERE (workspace, submission_id) = (
    SELECT workspace, submission_id FROM submission WHERE state IN ('vouching', 'fetching') AND due_at <= now()
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING *;

-- name: renew_lease(workspace, submission_id, lease, until)$
-- Hold a submission longer; NULL when somebody else holds it by now.
UPDATE submission SET due_at = :until WHERE workspace = :workspace AND submission_id = :submission_id AND lease = :lease
RETURNING true;

-- name: postpone_submission(workspace, submission_id, lease, until)!
-- Give a submission back, to be tried again later.
UPDATE submission SET due_at = :until, lease = NULL
WHERE workspace = :workspace AND submission_id = :submission_id AND lease = :lease;

-- name: forward_submission(workspace, submission_id, author, author_proven, due_at)!
-- A submission whose author is known now: on to its artefacts.
UPDATE submission SET state = 'fetching', author = :author, author_proven = :author_proven, due_at = :due_at, attempts = 0, lease = NULL
WHERE workspace = :workspace AND submission_id = :submission_id AND state = 'vouching';

-- name: vouch(workspace, submission_id, name, author, author_proven)!
-- Who wrote the prompt of a submission.
INSERT INTO vouched (workspace, submission_id, name, author, author_proven)
VALUES (:workspace, :submission_id, :name, :author, :author_proven) ON CONFLICT DO NOTHING;

-- name: vouched(workspace, submission_id)^
-- Who the prompts service says wrote a submission.
SELECT * FROM vouched WHERE workspace = :workspace AND submission_id = :submission_id;

-- name: hold_artefact(workspace, digest, size, since)!
-- This workspace holds these bytes from now on.
INSERT INTO artefact (workspace, digest, size, since) VALUES (:workspace, :digest, :size, :since) ON CONFLICT DO NOTHING;

-- name: artefact(workspace, digest)^
-- Bytes that this workspace holds.
SELECT * FROM artefact WHERE workspace = :workspace AND digest = :digest;
