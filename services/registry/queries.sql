-- name: lock_asset(workspace, urn)^
-- The asset's row, locked until commit. One that was hidden is seen again.
UPDATE asset SET hidden = false WHERE workspace = :workspace AND urn = :urn RETURNING *;

-- name: make_asset(workspace, urn, kind, name, title, at)^
-- A new asset; nothing where it, or another one with its title, was made meanwhile. Two that are made at once meet in
-- either of the two unique indexes, so that none of them is named.
INSERT INTO asset (workspace, urn, kind, name, title, created_at, updated_at)
VALUES (:workspace, :urn, :kind, :name, :title, :at, :at)
ON CONFLICT DO NOTHING RETURNING *;

-- name: asset(workspace, urn)^
-- An asset, without its versions.
SELECT * FROM asset WHERE workspace = :workspace AND urn = :urn;

-- name: asset_by_title(workspace, title, kinds)^
-- The asset of one of these kinds that people call so; the kind that is named first where there are several.
SELECT * FROM asset WHERE workspace = :workspace AND title = :title AND kind = ANY(:kinds::text[]) AND NOT hidden
ORDER BY array_position(:kinds::text[], kind) LIMIT 1;

-- name: take_number(workspace, urn, wanted, at)$
-- The next version number of a locked asset, or the one that is wanted.
UPDATE asset SET updated_at = greatest(updated_at, :at),
    last_version = CASE WHEN :wanted::integer IS NULL THEN last_version + 1 ELSE greatest(last_version, :wanted) END
WHERE workspace = :workspace AND urn = :urn RETURNING coalesce(:wanted::integer, last_version);

-- name: put_asset(workspace, urn, title, description, tags, revision, updated_at, hidden)!
-- A locked asset's metadata as they are now.
UPDATE asset SET title = :title, description = :description, tags = :tags, revision = :revision, updated_at = :updated_at, hidden = :hidden
WHERE workspace = :workspace AND urn = :urn;

-- name: put_version_state(workspace, urn, version, description, tags, revision, yanked_at, updated_at)!
-- A version's metadata as they are now; its asset is locked.
INSERT INTO version_state (workspace, urn, version, description, tags, revision, yanked_at, updated_at)
VALUES (:workspace, :urn, :version, :description, :tags, :revision, :yanked_at, :updated_at)
ON CONFLICT (workspace, urn, version) DO UPDATE SET description = excluded.description, tags = excluded.tags,
    revision = excluded.revision, yanked_at = excluded.yanked_at, updated_at = excluded.updated_at;

-- name: log_change(workspace, urn, version, revision, field, before, after, who, who_proven, reason, at)!
-- One change of metadata.
INSERT INTO metadata_change (workspace, urn, version, revision, field, before, after, who, who_proven, reason, at)
VALUES (:workspace, :urn, :version, :revision, :field, :before, :after, :who, :who_proven, :reason, :at);

-- name: changes_before(workspace, urn, version, before, most)
-- Changes of metadata, newest first, below a revision.
SELECT * FROM metadata_change WHERE workspace = :workspace AND urn = :urn AND version = :version AND revision < :before
ORDER BY revision DESC, field LIMIT :most;

-- name: derived(workspace, source)
-- What rests on a node by an edge that still holds.
SELECT destination FROM edge WHERE workspace = :workspace AND source = :source AND until IS NULL
AND association IN ('ContributedTo', 'DerivedFrom') AND destination LIKE 'mm:%' ORDER BY destination LIMIT 20;

-- name: insert_version(workspace, urn, version, digest, content, artefact_digest, artefact_size, tags, description, metrics, author, author_proven, submission_id, registered_at)$
-- A new version; returns its number in the order of registration.
INSERT INTO version (workspace, urn, version, digest, content, artefact_digest, artefact_size, tags, description, metrics,
                     author, author_proven, submission_id, registered_at)
VALUES (:workspace, :urn, :version, :digest, :content, :artefact_digest, :artefact_size, :tags, :description, :metrics,
        :author, :author_proven, :submission_id, :registered_at)
RETURNING number;

-- name: register_at_once(workspace, urn, title, digest, content, tags, description, author, author_proven, submission_id, registered_at, come, text, fields, numbers, gist, event_id, before, after, correlation_id, causation_id, traceparent)$
-- A further version of an asset in one statement and one transaction of its own; its number, NULL where it cannot be so.
SELECT register_at_once(:workspace, :urn, :title, :digest, :content, :tags, :description, :author, :author_proven, :submission_id,
    :registered_at, :come, :text, :fields, :numbers, :gist, :event_id, :before, :after, :correlation_id, :causation_id, :traceparent);

-- name: version_by_digest(workspace, urn, digest)^
-- The version of an asset that has this content.
SELECT * FROM version_now WHERE workspace = :workspace AND urn = :urn AND digest = :digest;

-- name: version(workspace, urn, version)^
-- One version.
SELECT * FROM version_now WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: versions_before(workspace, urn, before, most)
-- Versions of an asset that are not yanked, newest first, below a version number.
SELECT * FROM version_now WHERE workspace = :workspace AND urn = :urn AND version < :before AND yanked_at IS NULL ORDER BY version DESC LIMIT :most;

-- name: versions_by_number(workspace, numbers)
-- Versions by their order of registration, newest first.
SELECT * FROM version_now WHERE workspace = :workspace AND number = ANY(:numbers::bigint[]) ORDER BY number DESC;

-- name: assets_listed(workspace, kinds, after, most)
-- Assets of some kinds by what they are called, after a title.
SELECT * FROM asset WHERE workspace = :workspace AND kind = ANY(:kinds::text[]) AND NOT hidden AND title COLLATE "C" > :after
ORDER BY title COLLATE "C" LIMIT :most;

-- name: versions_listed(workspace, kinds, urn, offset, most)
-- Versions of some kinds, or of one asset, last changed first.
SELECT * FROM version_now WHERE workspace = :workspace AND kind = ANY(:kinds::text[]) AND yanked_at IS NULL
AND (:urn::text IS NULL OR urn = :urn) ORDER BY updated_at DESC, title COLLATE "C", version DESC OFFSET :offset LIMIT :most;

-- name: newest_by_stage(workspace, urns)
-- The highest version in each stage of some assets, without those that are yanked.
SELECT found.* FROM unnest(:urns::text[]) AS asked (urn), LATERAL (
    (SELECT v.*, 'development' AS stage FROM version_now AS v
     WHERE v.workspace = :workspace AND v.urn = asked.urn AND v.yanked_at IS NULL AND 'development' = coalesce((
         SELECT m.after FROM stage_move AS m WHERE m.workspace = v.workspace AND m.urn = v.urn AND m.version = v.version
         ORDER BY m.revision DESC LIMIT 1), 'development')
     ORDER BY v.version DESC LIMIT 1)
    UNION ALL
    (SELECT DISTINCT ON (m.after) v.*, m.after AS stage FROM (
         SELECT DISTINCT ON (s.version) s.version, s.after FROM stage_move AS s
         WHERE s.workspace = :workspace AND s.urn = asked.urn ORDER BY s.version, s.revision DESC) AS m
     JOIN version_now AS v ON v.workspace = :workspace AND v.urn = asked.urn AND v.version = m.version
     WHERE m.after <> 'development' AND v.yanked_at IS NULL ORDER BY m.after, v.version DESC)) AS found;

-- name: asset_for_update(workspace, urn)^
-- An asset, held until commit.
SELECT * FROM asset WHERE workspace = :workspace AND urn = :urn FOR UPDATE;

-- name: twins(workspace, artefact_digest, urn)
-- Versions of other assets that rest on the same bytes.
SELECT urn, version FROM version WHERE workspace = :workspace AND artefact_digest = :artefact_digest AND urn <> :urn
ORDER BY number LIMIT 100;

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

-- name: claim_bytes(digests)!
-- Nobody removes these bytes until commit; whoever is at it just now is waited for. Always in this order, and one of 1,024
-- locks for a digest: thousands of files are one call, and Postgres has room for some ten thousand locks in all.
SELECT pg_advisory_xact_lock_shared(lock) FROM (
    SELECT DISTINCT hashtextextended('bytes', hashtextextended(digest, 0) & 1023) AS lock
    FROM unnest(:digests::text[]) AS digest ORDER BY lock) AS sorted;

-- name: held(workspace, digests)
-- Those of the digests that this workspace holds.
SELECT digest FROM artefact WHERE workspace = :workspace AND digest = ANY(:digests::text[]);

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

-- name: aliases_of(workspace, urns)
-- Where every alias of some assets points now.
SELECT * FROM (
    SELECT DISTINCT ON (urn, alias) * FROM alias_move WHERE workspace = :workspace AND urn = ANY(:urns::text[])
    ORDER BY urn, alias, revision DESC) AS last
WHERE after IS NOT NULL ORDER BY urn, alias;

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

-- name: stages_of(workspace, urns, versions)
-- The present stage of some versions of any assets; those in development may be missing.
SELECT DISTINCT ON (m.urn, m.version) m.urn, m.version, m.after
FROM unnest(:urns::text[], :versions::integer[]) AS asked (urn, version)
JOIN stage_move AS m ON m.workspace = :workspace AND m.urn = asked.urn AND m.version = asked.version
ORDER BY m.urn, m.version, m.revision DESC;

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

-- name: link(workspace, sources, associations, destinations, properties, since, event_id)!
-- Edges of the lineage, in order, so that no two transactions wait for each other. One that holds already is left alone,
-- but for its beginning, which may be heard of later than its end.
INSERT INTO edge (workspace, source, association, destination, properties, since, event_id)
SELECT :workspace::text, source, association, destination, properties::jsonb, :since::timestamptz, :event_id::text
FROM unnest(:sources::text[], :associations::text[], :destinations::text[], :properties::text[])
    AS e (source, association, destination, properties)
ON CONFLICT (workspace, source, association, destination) WHERE until IS NULL DO UPDATE SET since = excluded.since
WHERE edge.since > excluded.since;

-- name: link_bases(workspace, node, number, bases, since, event_id)!
-- A base is named by its asset, without a version: the newest of those registered before (`number`) is taken to be it, as in
-- the bill of material. Later ones were not what this was made from.
INSERT INTO edge (workspace, source, association, destination, since, event_id)
SELECT :workspace::text, base.urn || '@' || newest.version, 'AssociatedWith', :node::text, :since::timestamptz, :event_id::text
FROM unnest(:bases::text[]) AS base (urn), LATERAL (
    SELECT version.version FROM version WHERE version.workspace = :workspace AND version.urn = base.urn
    AND version.number < :number ORDER BY version.version DESC LIMIT 1) AS newest
ORDER BY base.urn
ON CONFLICT (workspace, source, association, destination) WHERE until IS NULL DO NOTHING;

-- name: unlink(workspace, source, association, destination, until)!
-- An edge that holds no longer.
UPDATE edge SET until = greatest(:until, since) WHERE workspace = :workspace AND source = :source
AND association = :association AND destination = :destination AND until IS NULL;

-- name: edges_from(workspace, nodes, associations, most)
-- Edges that leave any of these nodes now, so many of each node at most. What is the same as a node leaves with it, so
-- SameAs is followed both ways.
SELECT asked.node AS asked, found.* FROM unnest(:nodes::text[]) AS asked (node), LATERAL (
    (SELECT source, association, destination, since, until, properties FROM edge
     WHERE workspace = :workspace AND source = asked.node AND until IS NULL AND association = ANY(:associations::text[])
     ORDER BY association, destination LIMIT :most)
    UNION ALL
    (SELECT source, association, destination, since, until, properties FROM edge
     WHERE workspace = :workspace AND destination = asked.node AND until IS NULL AND association = 'SameAs'
     AND association = ANY(:associations::text[]) ORDER BY association, source LIMIT :most)
    LIMIT :most) AS found;

-- name: edges_to(workspace, nodes, associations, most)
-- Edges that arrive at any of these nodes now, so many of each node at most.
SELECT asked.node AS asked, found.* FROM unnest(:nodes::text[]) AS asked (node), LATERAL (
    (SELECT source, association, destination, since, until, properties FROM edge
     WHERE workspace = :workspace AND destination = asked.node AND until IS NULL
     AND association = ANY(:associations::text[]) ORDER BY association, source LIMIT :most)
    UNION ALL
    (SELECT source, association, destination, since, until, properties FROM edge
     WHERE workspace = :workspace AND source = asked.node AND until IS NULL AND association = 'SameAs'
     AND association = ANY(:associations::text[]) ORDER BY association, destination LIMIT :most)
    LIMIT :most) AS found;

-- name: edges_from_at(workspace, nodes, associations, at, most)
-- Edges that left any of these nodes at a moment: those that hold still, and those that ended since.
SELECT asked.node AS asked, found.* FROM unnest(:nodes::text[]) AS asked (node), LATERAL (
    (SELECT source, association, destination, since, until, properties FROM edge
     WHERE workspace = :workspace AND source = asked.node AND until IS NULL AND since <= :at
     AND association = ANY(:associations::text[]) ORDER BY association, destination LIMIT :most)
    UNION ALL
    (SELECT source, association, destination, since, until, properties FROM edge
     WHERE workspace = :workspace AND source = asked.node AND until > :at AND since <= :at
     AND association = ANY(:associations::text[]) LIMIT :most)
    UNION ALL
    (SELECT source, association, destination, since, until, properties FROM edge
     WHERE workspace = :workspace AND destination = asked.node AND until IS NULL AND since <= :at
     AND association = 'SameAs' AND association = ANY(:associations::text[]) ORDER BY association, source LIMIT :most)
    LIMIT :most) AS found;

-- name: edges_to_at(workspace, nodes, associations, at, most)
-- Edges that arrived at any of these nodes at a moment: those that hold still, and those that ended since.
SELECT asked.node AS asked, found.* FROM unnest(:nodes::text[]) AS asked (node), LATERAL (
    (SELECT source, association, destination, since, until, properties FROM edge
     WHERE workspace = :workspace AND destination = asked.node AND until IS NULL AND since <= :at
     AND association = ANY(:associations::text[]) ORDER BY association, source LIMIT :most)
    UNION ALL
    (SELECT source, association, destination, since, until, properties FROM edge
     WHERE workspace = :workspace AND destination = asked.node AND until > :at AND since <= :at
     AND association = ANY(:associations::text[]) LIMIT :most)
    UNION ALL
    (SELECT source, association, destination, since, until, properties FROM edge
     WHERE workspace = :workspace AND source = asked.node AND until IS NULL AND since <= :at
     AND association = 'SameAs' AND association = ANY(:associations::text[]) ORDER BY association, destination LIMIT :most)
    LIMIT :most) AS found;

-- name: is_linked(workspace, node)$
-- Whether any edge, of now or of before, touches a node, or an OpenLineage event spoke of it.
SELECT EXISTS (SELECT FROM edge WHERE workspace = :workspace AND source = :node AND until IS NULL)
    OR EXISTS (SELECT FROM edge WHERE workspace = :workspace AND destination = :node AND until IS NULL)
    OR EXISTS (SELECT FROM edge WHERE workspace = :workspace AND source = :node AND until IS NOT NULL)
    OR EXISTS (SELECT FROM edge WHERE workspace = :workspace AND destination = :node AND until IS NOT NULL)
    OR EXISTS (SELECT FROM openlineage_facet WHERE workspace = :workspace AND node = :node);

-- name: said_of_nodes(workspace, kinds, ids)
-- The few words of each finding that name its node to a person.
SELECT kind, id, urn, version, at, jsonb_strip_nulls(jsonb_build_object(
    'verdict', document -> 'verdict', 'decision', document -> 'decision', 'template', document -> 'template',
    'rows', document -> 'rows', 'code', document -> 'code', 'target', document -> 'target',
    'endpoint', document -> 'endpoint', 'measure', document -> 'measure')) AS words
FROM unnest(:kinds::text[], :ids::text[]) AS asked (kind, id) JOIN finding USING (kind, id)
WHERE finding.workspace = :workspace;

-- name: versions_of_nodes(workspace, urns, versions, at)
-- Stage and description of versions at a moment.
SELECT version.urn, version.version, version.description, coalesce(moved.after, 'development') AS stage
FROM unnest(:urns::text[], :versions::integer[]) AS asked (urn, version)
JOIN version ON version.workspace = :workspace AND version.urn = asked.urn AND version.version = asked.version
LEFT JOIN LATERAL (
    SELECT after FROM stage_move WHERE stage_move.workspace = :workspace AND stage_move.urn = asked.urn
    AND stage_move.version = asked.version AND stage_move.at <= :at ORDER BY revision DESC LIMIT 1) AS moved ON true;

-- name: groups_of_nodes(workspace, names)
-- Groups as they were heard of last.
SELECT name, revision, arms FROM model_group WHERE workspace = :workspace AND name = ANY(:names::text[]);

-- name: runs_of_nodes(workspace, ids)
-- What was heard of runs.
SELECT run_id, job, state, started_at, ended_at FROM lineage_run WHERE workspace = :workspace AND run_id = ANY(:ids::text[]);

-- name: put_run(workspace, run_id, job, state, state_at, started_at, ended_at)!
-- What was heard of a run: its newest state, but what ended does not go on; the earliest beginning; the latest end.
INSERT INTO lineage_run AS known (workspace, run_id, job, state, state_at, started_at, ended_at)
VALUES (:workspace, :run_id, :job, :state, :state_at, :started_at, :ended_at)
ON CONFLICT (workspace, run_id) DO UPDATE SET
    job = CASE WHEN excluded.job = '' THEN known.job ELSE excluded.job END,
    state = CASE WHEN (excluded.ended_at IS NOT NULL, excluded.state_at) >= (known.ended_at IS NOT NULL, known.state_at)
            THEN excluded.state ELSE known.state END,
    state_at = CASE WHEN (excluded.ended_at IS NOT NULL, excluded.state_at) >= (known.ended_at IS NOT NULL, known.state_at)
               THEN excluded.state_at ELSE known.state_at END,
    started_at = least(known.started_at, excluded.started_at), ended_at = greatest(known.ended_at, excluded.ended_at);

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

-- name: protection(workspace)$
-- What policy protects in the workspace.
SELECT document FROM protection WHERE workspace = :workspace;

-- name: put_protection(workspace, number, document)!
-- Policy's newest word on what is protected.
INSERT INTO protection (workspace, number, document) VALUES (:workspace, :number, :document)
ON CONFLICT (workspace) DO UPDATE SET number = excluded.number, document = excluded.document
WHERE protection.number < excluded.number;

-- name: retired_among(workspace, urns, versions)
-- Of these versions, the ones that are retired.
SELECT asked.urn, asked.version FROM unnest(:urns::text[], :versions::integer[]) AS asked (urn, version), LATERAL (
    SELECT after FROM stage_move AS m WHERE m.workspace = :workspace AND m.urn = asked.urn AND m.version = asked.version
    ORDER BY revision DESC LIMIT 1) AS last
WHERE last.after = 'retired';

-- name: consumers(workspace, urn, version)
-- Consumers that are bound to a version and did not let go.
SELECT DISTINCT consumer FROM binding AS b WHERE workspace = :workspace AND urn = :urn AND version = :version
AND NOT EXISTS (SELECT FROM binding_release AS r WHERE r.workspace = :workspace AND r.binding_id = b.binding_id)
ORDER BY consumer LIMIT 20;
