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

-- name: asset_for_update(workspace, urn)$
-- Whether the asset is there; holds it until commit.
SELECT true FROM asset WHERE workspace = :workspace AND urn = :urn FOR UPDATE;

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

-- name: one_at_a_time(workspace, submission_id)!
-- Hold what is said of one submission until commit: a prompt's author and the prompt itself may come at the same moment,
-- and neither transaction would see the other's row.
SELECT pg_advisory_xact_lock(hashtextextended(:workspace || :submission_id, 0));

-- name: vouch(workspace, submission_id, name, version, author, author_proven)!
-- Who wrote the prompt of a submission, and which version of the prompt it is.
INSERT INTO vouched (workspace, submission_id, name, version, author, author_proven)
VALUES (:workspace, :submission_id, :name, :version, :author, :author_proven) ON CONFLICT DO NOTHING;

-- name: vouched(workspace, submission_id, name)^
-- Who the prompts service says wrote a submission of a prompt of this name.
SELECT * FROM vouched WHERE workspace = :workspace AND submission_id = :submission_id AND name = :name;

-- name: hold_artefact(workspace, digest, size, since)!
-- This workspace holds these bytes from now on.
INSERT INTO artefact (workspace, digest, size, since) VALUES (:workspace, :digest, :size, :since) ON CONFLICT DO NOTHING;

-- name: artefact(workspace, digest)^
-- Bytes that this workspace holds.
SELECT * FROM artefact WHERE workspace = :workspace AND digest = :digest;

-- name: alias(workspace, urn, alias, at)^
-- The last move of an alias at or before a moment.
SELECT * FROM alias_move WHERE workspace = :workspace AND urn = :urn AND alias = :alias AND at <= :at
ORDER BY revision DESC LIMIT 1;

-- name: aliases(workspace, urn, at)
-- Where every alias of an asset pointed at a moment.
SELECT * FROM (
    SELECT DISTINCT ON (alias) * FROM alias_move WHERE workspace = :workspace AND urn = :urn AND at <= :at
    ORDER BY alias, revision DESC) AS last
WHERE after IS NOT NULL ORDER BY alias;

-- name: alias_history(workspace, urn, alias, before, most)
-- Moves of an alias, newest first, below a revision.
SELECT * FROM alias_move WHERE workspace = :workspace AND urn = :urn AND alias = :alias AND revision < :before
ORDER BY revision DESC LIMIT :most;

-- name: move_alias(workspace, urn, alias, revision, before, after, who, who_proven, reason, at)!
-- One move of an alias.
INSERT INTO alias_move (workspace, urn, alias, revision, before, after, who, who_proven, reason, at)
VALUES (:workspace, :urn, :alias, :revision, :before, :after, :who, :who_proven, :reason, :at);

-- name: stage(workspace, urn, version, at)^
-- The last move of a version between stages at or before a moment.
SELECT * FROM stage_move WHERE workspace = :workspace AND urn = :urn AND version = :version AND at <= :at
ORDER BY revision DESC LIMIT 1;

-- name: stages(workspace, urn, versions)
-- The present stage of some versions of an asset; those in development may be missing.
SELECT DISTINCT ON (version) * FROM stage_move
WHERE workspace = :workspace AND urn = :urn AND version = ANY(:versions::integer[]) ORDER BY version, revision DESC;

-- name: in_stage(workspace, urn, stage, at)
-- The moves by which versions of an asset came into the stage that they were in at a moment, latest first.
SELECT * FROM (
    SELECT DISTINCT ON (version) * FROM stage_move WHERE workspace = :workspace AND urn = :urn AND at <= :at
    ORDER BY version, revision DESC) AS last
WHERE after = :stage ORDER BY at DESC, version DESC;

-- name: left_stage(workspace, urn, stage, not_version)^
-- The last move by which another version left a stage.
SELECT * FROM stage_move WHERE workspace = :workspace AND urn = :urn AND before = :stage AND version <> :not_version
ORDER BY at DESC, version DESC, revision DESC LIMIT 1;

-- name: stage_history(workspace, urn, version, before, most)
-- Moves of a version between stages, newest first, below a revision.
SELECT * FROM stage_move WHERE workspace = :workspace AND urn = :urn AND version = :version AND revision < :before
ORDER BY revision DESC LIMIT :most;

-- name: move_stage(workspace, urn, version, revision, before, after, who, who_proven, reason, at)!
-- One move of a version between stages.
INSERT INTO stage_move (workspace, urn, version, revision, before, after, who, who_proven, reason, at)
VALUES (:workspace, :urn, :version, :revision, :before, :after, :who, :who_proven, :reason, :at);

-- name: link(workspace, sources, associations, destinations, since, event_id)!
-- Edges of the lineage, in order, so that no two transactions wait for each other; one that had ended holds again.
INSERT INTO edge (workspace, source, association, destination, since, event_id)
SELECT :workspace::text, source, association, destination, :since::timestamptz, :event_id::text
FROM unnest(:sources::text[], :associations::text[], :destinations::text[]) AS e (source, association, destination)
ON CONFLICT (workspace, source, association, destination) DO UPDATE SET
    since = excluded.since, until = NULL, event_id = excluded.event_id WHERE edge.until IS NOT NULL;

-- name: unlink(workspace, source, association, destination, until)!
-- An edge that holds no longer.
UPDATE edge SET until = :until WHERE workspace = :workspace AND source = :source AND association = :association
AND destination = :destination AND until IS NULL;

-- name: edges_from(workspace, nodes, most)
-- Edges that leave any of these nodes.
SELECT * FROM edge WHERE workspace = :workspace AND source = ANY(:nodes::text[])
ORDER BY source, association, destination LIMIT :most;

-- name: edges_to(workspace, nodes, most)
-- Edges that arrive at any of these nodes.
SELECT * FROM edge WHERE workspace = :workspace AND destination = ANY(:nodes::text[])
ORDER BY destination, association, source LIMIT :most;

-- name: put_finding(workspace, kind, id, urn, version, at, document)!
-- What another service said, its newest word.
INSERT INTO finding (workspace, kind, id, urn, version, at, document)
VALUES (:workspace, :kind, :id, :urn, :version, :at, :document)
ON CONFLICT (workspace, kind, id) DO UPDATE SET at = excluded.at, document = excluded.document
WHERE finding.at <= excluded.at;

-- name: findings(workspace, urn, version)
-- What was said of a version and of its asset as a whole, newest first.
SELECT kind, id, at, document FROM finding WHERE workspace = :workspace AND urn = :urn AND version IN (0, :version)
ORDER BY at DESC, id DESC LIMIT 500;

-- name: hold_group(workspace, name)^
-- A model group as it was heard of last, held until commit; made at revision 0 if need be.
INSERT INTO model_group (workspace, name, revision, arms) VALUES (:workspace, :name, 0, '[]')
ON CONFLICT (workspace, name) DO UPDATE SET revision = model_group.revision RETURNING revision, arms;

-- name: put_group(workspace, name, revision, arms)!
-- A held group's new state.
UPDATE model_group SET revision = :revision, arms = :arms WHERE workspace = :workspace AND name = :name;

-- name: lexemes(text)$
-- The stems that full text makes of a text, without its stop words.
SELECT tsvector_to_array(to_tsvector('english', :text));

-- name: frequencies(workspace, terms, most)
-- How many versions each term finds, counted up to a bound, rarest first.
SELECT asked.term, counted.n FROM unnest(:terms::text[]) AS asked(term), LATERAL (
    SELECT count(*) AS n FROM (
        SELECT FROM term WHERE term.workspace = :workspace AND term.term = asked.term LIMIT :most) AS bounded) AS counted
ORDER BY counted.n, asked.term;

-- name: find(workspace, first, rest, before, most)
-- Versions that all the terms find, newest first: the rarest term is walked, the others are looked up for each.
SELECT walked.number FROM term AS walked
WHERE walked.workspace = :workspace AND walked.term = :first AND walked.number < :before
AND NOT EXISTS (SELECT FROM unnest(:rest::text[]) AS other(term) WHERE NOT EXISTS (
    SELECT FROM term AS found
    WHERE found.workspace = :workspace AND found.term = other.term AND found.number = walked.number))
ORDER BY walked.number DESC LIMIT :most;

-- name: find_all(workspace, before, most)
-- Every version, newest first.
SELECT number FROM version WHERE workspace = :workspace AND number < :before ORDER BY number DESC LIMIT :most;
