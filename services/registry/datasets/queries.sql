-- name: add_dataset(workspace, urn, version, expires_at, digests, due_at)!
-- A new dataset version: how long it is kept, what it rests on, and that its rows are to be counted.
WITH made AS (
    INSERT INTO dataset (workspace, urn, version, expires_at) VALUES (:workspace, :urn, :version, :expires_at)
    ON CONFLICT DO NOTHING),
filed AS (
    INSERT INTO dataset_file (workspace, digest, urn, version)
    SELECT :workspace::text, digest, :urn::text, :version::integer FROM unnest(:digests::text[]) AS digest
    ON CONFLICT DO NOTHING)
INSERT INTO dataset_work (workspace, urn, version, what, due_at) VALUES (:workspace, :urn, :version, 'rows', :due_at)
ON CONFLICT DO NOTHING;

-- name: ask_overlap(workspace, urn, version, due_at)!
-- A model's training set is to be compared with its golden set.
INSERT INTO dataset_work (workspace, urn, version, what, due_at) VALUES (:workspace, :urn, :version, 'overlap', :due_at)
ON CONFLICT DO NOTHING;

-- name: hold_dataset(workspace, urn, version)^
-- A dataset version, held until commit.
SELECT * FROM dataset WHERE workspace = :workspace AND urn = :urn AND version = :version FOR UPDATE;

-- name: dataset(workspace, urn, version)^
-- A dataset version's keeping.
SELECT * FROM dataset WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: last_move(workspace, urn, version, what)^
-- The last word on a lock or a hold.
SELECT * FROM dataset_move WHERE workspace = :workspace AND urn = :urn AND version = :version AND what = :what
ORDER BY revision DESC LIMIT 1;

-- name: moves(workspace, urn, version)
-- Every lock and hold of a version, newest first.
SELECT * FROM dataset_move WHERE workspace = :workspace AND urn = :urn AND version = :version ORDER BY at DESC, what, revision DESC;

-- name: add_move(workspace, urn, version, what, revision, holds, who, who_proven, reason, at)!
-- One more word.
INSERT INTO dataset_move (workspace, urn, version, what, revision, holds, who, who_proven, reason, at)
VALUES (:workspace, :urn, :version, :what, :revision, :holds, :who, :who_proven, :reason, :at);

-- name: locked_of_run(workspace, node)
-- Golden sets that were locked when a run was fed with them.
SELECT edge.source FROM edge, LATERAL (
    SELECT holds, at FROM dataset_move
    WHERE dataset_move.workspace = :workspace AND dataset_move.what = 'golden'
    AND dataset_move.urn = split_part(edge.source, '@', 1) AND dataset_move.version::text = split_part(edge.source, '@', 2)
    ORDER BY revision DESC LIMIT 1) AS last
WHERE edge.workspace = :workspace AND edge.destination = :node AND edge.until IS NULL
AND edge.association = 'ContributedTo' AND edge.source LIKE 'mm:dataset/%' AND last.holds AND last.at <= edge.since;

-- name: trained_on(workspace, node)
-- Versions that were trained on a dataset version, some at most.
SELECT destination FROM edge WHERE workspace = :workspace AND source = :node AND until IS NULL
AND association = 'ContributedTo' AND destination LIKE 'mm:%' ORDER BY destination LIMIT 100;

-- name: claim_work(lease, until)^
-- The work that is due longest, of any workspace.
UPDATE dataset_work SET lease = :lease, due_at = :until, attempts = attempts + 1
WHERE (workspace, urn, version, what) = (
    SELECT workspace, urn, version, what FROM dataset_work WHERE state = 'waiting' AND due_at <= now()
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING *;

-- name: renew_work(workspace, urn, version, what, lease, until)!
-- Hold a piece of work longer.
UPDATE dataset_work SET due_at = :until
WHERE workspace = :workspace AND urn = :urn AND version = :version AND what = :what AND lease = :lease;

-- name: end_work(workspace, urn, version, what, lease, state, due_at, error)$
-- Done, failed, or to be tried again; NULL when somebody else has it by now.
UPDATE dataset_work SET state = :state, due_at = :due_at, error = :error, lease = NULL
WHERE workspace = :workspace AND urn = :urn AND version = :version AND what = :what AND lease = :lease RETURNING true;

-- name: work(workspace, urn, version)
-- What is to be done, or was done, for a version.
SELECT what, state, attempts, error FROM dataset_work WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: put_sketch(workspace, urn, version, split, row_count, distinct_rows, halvings, digest, at)!
-- The counted rows of a split.
INSERT INTO dataset_sketch (workspace, urn, version, split, row_count, distinct_rows, halvings, digest, at)
VALUES (:workspace, :urn, :version, :split, :row_count, :distinct_rows, :halvings, :digest, :at)
ON CONFLICT (workspace, urn, version, split) DO UPDATE SET row_count = excluded.row_count,
    distinct_rows = excluded.distinct_rows, halvings = excluded.halvings, digest = excluded.digest, at = excluded.at;

-- name: sketches(workspace, urn, version)
-- The counted rows of each split.
SELECT * FROM dataset_sketch WHERE workspace = :workspace AND urn = :urn AND version = :version ORDER BY split;

-- name: expired(now, most)
-- Dataset versions of any workspace whose time is over and that nobody holds.
SELECT workspace, urn, version, expires_at FROM dataset
WHERE expires_at <= :now AND released_at IS NULL AND NOT EXISTS (
    SELECT FROM (
        SELECT holds FROM dataset_move WHERE dataset_move.workspace = dataset.workspace AND dataset_move.urn = dataset.urn
        AND dataset_move.version = dataset.version AND what = 'hold' ORDER BY revision DESC LIMIT 1) AS last
    WHERE last.holds)
ORDER BY expires_at LIMIT :most;

-- name: files_of(workspace, urn, version)
-- The bytes of a dataset version, and whether something else of this workspace rests on them: another version, a file
-- that a run or a model left, or a document that a model was read from.
SELECT digest, (SELECT size FROM artefact WHERE artefact.workspace = :workspace AND artefact.digest = own.digest) AS size,
    EXISTS (SELECT FROM dataset_file AS other JOIN dataset USING (workspace, urn, version)
            WHERE other.workspace = :workspace AND other.digest = own.digest AND dataset.released_at IS NULL
            AND (other.urn, other.version) <> (own.urn, own.version))
    OR EXISTS (SELECT FROM version WHERE version.workspace = :workspace AND version.artefact_digest = own.digest)
    OR EXISTS (SELECT FROM tracked_file AS file WHERE file.workspace = :workspace AND file.digest = own.digest)
    OR EXISTS (SELECT FROM foreign_proposal AS read WHERE read.workspace = :workspace AND read.document = own.digest) AS shared
FROM dataset_file AS own WHERE workspace = :workspace AND urn = :urn AND version = :version ORDER BY digest;

-- name: release(workspace, urn, version, released_at, plan, digests)!
-- From now on these bytes are not this workspace's: nobody can download them, nothing new can rest on them.
WITH gone AS (DELETE FROM artefact WHERE workspace = :workspace AND digest = ANY(:digests::text[]))
UPDATE dataset SET released_at = :released_at, plan = :plan
WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: released(before, most)
-- Dataset versions of any workspace that were released long enough ago.
SELECT workspace, urn, version FROM dataset WHERE released_at <= :before AND erased_at IS NULL ORDER BY released_at LIMIT :most;

-- name: alone_with(digests)$
-- Bytes for oneself until commit, to let go or remove; false, and without waiting, where somebody is claiming them.
-- A store may take its time to remove them, and the lock is to last as long, whatever the server allows others.
SELECT coalesce(bool_and(pg_try_advisory_xact_lock(lock)), true)
    AND set_config('idle_in_transaction_session_timeout', '0', true) IS NOT NULL
FROM (
    SELECT DISTINCT hashtextextended('bytes', hashtextextended(digest, 0) & 1023) AS lock
    FROM unnest(:digests::text[]) AS digest ORDER BY lock) AS sorted;

-- name: rested_on(digest, workspace, urn, version)$
-- Whether any workspace holds these bytes, or another version has counted rows in them. Runs over all workspaces.
SELECT EXISTS (SELECT FROM artefact WHERE digest = :digest)
    OR EXISTS (SELECT FROM dataset_sketch AS other WHERE other.digest = :digest
               AND (other.workspace, other.urn, other.version) <> (:workspace::text, :urn::text, :version::integer));

-- name: lone_sketches(workspace, urn, version)
-- Files of a version's row hashes that no other version shares. Runs over all workspaces.
SELECT DISTINCT digest FROM dataset_sketch AS own
WHERE workspace = :workspace AND urn = :urn AND version = :version AND digest IS NOT NULL
AND NOT EXISTS (SELECT FROM dataset_sketch AS other WHERE other.digest = own.digest
                AND (other.workspace, other.urn, other.version) <> (own.workspace, own.urn, own.version));

-- name: erased(workspace, urn, version, erased_at, receipt)!
-- The bytes are gone; the receipt says which, and which were left.
WITH hashes AS (
    UPDATE dataset_sketch SET digest = NULL WHERE workspace = :workspace AND urn = :urn AND version = :version)
UPDATE dataset SET erased_at = :erased_at, receipt = :receipt, plan = NULL
WHERE workspace = :workspace AND urn = :urn AND version = :version;
