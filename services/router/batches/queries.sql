-- name: hold_file(workspace, digest, size, at)!
-- The workspace has the file, once however often it is given.
INSERT INTO batch_file (workspace, digest, size, at) VALUES (:workspace, :digest, :size, :at) ON CONFLICT DO NOTHING;

-- name: file_size(digest)$
-- NULL when the workspace has no such file.
SELECT size FROM batch_file WHERE digest = :digest;

-- name: insert_job(id, workspace, group_name, spec, who, roles, created_at)!
-- A batch, to be begun by whichever worker is free first.
INSERT INTO batch_job (id, workspace, group_name, spec, state, who, roles, created_at, next_at)
VALUES (:id, :workspace, :group_name, :spec, 'queued', :who, :roles, :created_at, :created_at);

-- name: job(id, group_name)^
-- A batch of the group.
SELECT * FROM batch_job WHERE id = :id AND group_name = :group_name;

-- name: jobs(group_name, before, before_id, most)
-- The group's batches, the latest first, from behind one that was seen.
SELECT * FROM batch_job
WHERE group_name = :group_name
  AND (:before::timestamptz IS NULL OR (created_at, id) < (:before::timestamptz, :before_id::uuid))
ORDER BY created_at DESC, id DESC LIMIT :most;

-- name: claim_job(owner, now, lease_until)^
-- One batch, of whichever workspace, that nobody works on; one is claimed anew when its lease ran out.
UPDATE batch_job SET lease_owner = :owner, lease_until = :lease_until, state = 'running', waits_for = NULL,
    started_at = coalesce(started_at, :now)
WHERE id = (
    SELECT id FROM batch_job WHERE next_at <= :now AND (lease_until IS NULL OR lease_until < :now)
    ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING *;

-- name: hold_job(id, owner, lease_until, total, recorded, failed)$
-- The worker goes on, with so many more results; whether it is to stop, NULL when the lease went to somebody else.
UPDATE batch_job SET lease_until = :lease_until, total = coalesce(:total, total), recorded = recorded + :recorded,
    failed = failed + :failed
WHERE id = :id AND lease_owner = :owner RETURNING cancel;

-- name: add_results(workspace, job_id, positions, results)!
-- What rows were answered, in the transaction that counts them.
INSERT INTO batch_result (workspace, job_id, position, result)
SELECT :workspace, :job_id, r.position, r.result FROM unnest(:positions::bigint[], :results::text[]) AS r (position, result);

-- name: first_missing(job_id)$
-- The first place without a result.
SELECT CASE WHEN NOT EXISTS (SELECT FROM batch_result WHERE job_id = :job_id AND position = 0) THEN 0 ELSE (
    SELECT r.position + 1 FROM batch_result AS r
    WHERE r.job_id = :job_id
      AND NOT EXISTS (SELECT FROM batch_result AS n WHERE n.job_id = :job_id AND n.position = r.position + 1)
    ORDER BY r.position LIMIT 1) END;

-- name: places_from(job_id, position)
-- Which places from this one on have a result.
SELECT position FROM batch_result WHERE job_id = :job_id AND position >= :position;

-- name: results(job_id, position, most)
-- Results in the order of the file, from this place on.
SELECT position, result FROM batch_result WHERE job_id = :job_id AND position >= :position ORDER BY position LIMIT :most;

-- name: end_job(id, owner, state, output, error_code, error_message, at)$
-- It is over; NULL when the lease went to somebody else.
UPDATE batch_job SET state = :state, output = :output, error_code = :error_code, error_message = :error_message,
    ended_at = :at, next_at = NULL, waits_for = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = :id AND lease_owner = :owner RETURNING id;

-- name: drop_results(job_id)!
-- They are in the output, or nobody will ask for them.
DELETE FROM batch_result WHERE job_id = :job_id;

-- name: wait_job(id, owner, next_at, waits_for)!
-- It cannot go on now; the lease is given back.
UPDATE batch_job SET next_at = :next_at, waits_for = :waits_for, lease_owner = NULL, lease_until = NULL
WHERE id = :id AND lease_owner = :owner;

-- name: cancel_job(id, group_name, now)$
-- No more rows are asked; one that nobody works on is looked at at once. NULL when it is over already.
UPDATE batch_job SET cancel = true, next_at = least(next_at, :now)
WHERE id = :id AND group_name = :group_name AND state IN ('queued', 'running') RETURNING id;
