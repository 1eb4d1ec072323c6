-- name: insert_ramp(id, workspace, group_name, plan, state, phase, revision, who, who_proven, created_at, next_at)!
-- A ramp begins; a unique index allows one a group that is not over.
INSERT INTO ramp (id, workspace, group_name, plan, state, phase, revision, first_revision, who, who_proven, created_at, next_at)
VALUES (:id, :workspace, :group_name, :plan, :state, :phase, :revision, :revision, :who, :who_proven, :created_at, :next_at);

-- name: latest_ramp(group_name)^
-- The group's ramp, or the one that it had last.
SELECT * FROM ramp WHERE group_name = :group_name ORDER BY created_at DESC, id DESC LIMIT 1;

-- name: lock_running_ramp(group_name)^
-- The group's ramp that is not over, for a person's change; waits for the worker's step to end.
SELECT * FROM ramp WHERE group_name = :group_name AND phase IN ('running', 'paused', 'watching') FOR UPDATE;

-- name: claim_ramps(owner, now, lease_until, most)
-- Ramps of every workspace that have something to do and that nobody works on; one is claimed anew when its lease ran out.
UPDATE ramp SET lease_owner = :owner, lease_until = :lease_until WHERE id IN (
    SELECT id FROM ramp
    WHERE phase IN ('running', 'paused', 'watching') AND next_at <= :now AND (lease_until IS NULL OR lease_until < :now)
    ORDER BY next_at LIMIT :most FOR UPDATE SKIP LOCKED)
RETURNING id, workspace;

-- name: held_ramp(id, owner)^
-- The ramp, while the lease is the worker's own.
SELECT * FROM ramp WHERE id = :id AND lease_owner = :owner FOR UPDATE;

-- name: save_ramp(id, state, phase, revision, next_at)!
-- How far the ramp is now; its lease is given back.
UPDATE ramp SET state = :state, phase = :phase, revision = :revision, next_at = :next_at, lease_owner = NULL, lease_until = NULL
WHERE id = :id;

-- name: add_entries(workspace, ramp_id, at, whats, details)!
-- What the ramp did, in order.
INSERT INTO ramp_entry (workspace, ramp_id, at, what, details)
SELECT :workspace, :ramp_id, :at, e.what, e.details::jsonb
FROM unnest(:whats::text[], :details::text[]) WITH ORDINALITY AS e (what, details, place) ORDER BY e.place;

-- name: entries_of(ramp_id, most)
-- The ramp's log, the latest first.
SELECT at, what, details FROM ramp_entry WHERE ramp_id = :ramp_id ORDER BY id DESC LIMIT :most;
