-- name: limit_time(milliseconds)$
-- No statement of this transaction runs longer.
SELECT set_config('statement_timeout', :milliseconds, true);

-- name: inference_search(name, since, until, before, before_id, filters, most, budget_ms)
-- A page of rows, newest first; a last row without an id says how far a search that ran out of time went.
SELECT * FROM inference_search(:name, :since, :until, :before, :before_id, :filters, :most, :budget_ms);

-- name: labels_known(name, request_ids, as_of)
-- The latest true label of each request, as far as it had been received by then.
SELECT * FROM labels_known(:name, :request_ids, :as_of);

-- name: inference_row(name, request_id)^
-- One row of a group, whole.
SELECT * FROM inference_row(:name, :request_id);

-- name: feedback_of(name, request_id, as_of, before, before_id, most)
-- What was said about a request until a moment, the latest first; `counts` is the latest word on its metric.
SELECT * FROM (
    SELECT id, metric, value, label, who, received_at,
           row_number() OVER (PARTITION BY metric ORDER BY received_at DESC, id DESC) = 1 AS counts
    FROM feedback WHERE group_name = :name AND request_id = :request_id AND received_at <= :as_of) AS said
WHERE (received_at, id) < (:before, :before_id) ORDER BY received_at DESC, id DESC LIMIT :most;

-- name: log_days_ahead()$
-- Today's and tomorrow's partition of every group.
SELECT inference_log_days_ahead();

-- name: log_days_due()
-- Partitions of days that are older than their group keeps its rows.
SELECT * FROM inference_log_days_due();

-- name: drop_log_day(partition)$
-- Remove a day of rows.
SELECT drop_inference_log_day(:partition);

-- name: views_due()
-- Groups whose view is not of their champion.
SELECT * FROM inference_views_due();

-- name: renew_view(name)$
-- Make the group's view anew.
SELECT renew_inference_view(:name);

-- name: log_days(name)
-- The days that a group has in its table, oldest first.
SELECT * FROM inference_log_days(:name);

-- name: export_statement(name, since, until, filters)$
-- The statement that COPY takes rows by.
SELECT inference_export(:name, :since, :until, :filters);

-- name: lock_archive(name)$
-- Nothing is erased from the group, and nothing of it archived, until the transaction ends.
SELECT lock_archive(:name);

-- name: drop_archived_day(name, partition, row_count)$
-- Remove a day of rows of which so many are archived; false when there are others.
SELECT drop_archived_day(:name, :partition, :row_count);

-- name: add_archive(id, workspace, group_name, day, digest, bytes, row_count, cause, made_at)!
-- Rows that stand in the artefact store from now on.
INSERT INTO log_archive (id, workspace, group_name, day, digest, bytes, row_count, cause, made_at)
VALUES (:id, :workspace, :group_name, :day, :digest, :bytes, :row_count, :cause, :made_at);

-- name: replace_archive(id, by)!
-- Another archive has these rows but for what was erased.
UPDATE log_archive SET replaced_by = :by WHERE id = :id;

-- name: all_archives(group_name)
-- A group's archives that hold its rows now, locked against their being replaced.
SELECT * FROM log_archive WHERE group_name = :group_name AND replaced_by IS NULL ORDER BY day, id FOR UPDATE;

-- name: bytes_to_remove()
-- Replaced archives, of every workspace, whose bytes are still in the store.
SELECT id, digest FROM log_archive WHERE replaced_by IS NOT NULL AND removed_at IS NULL LIMIT 100;

-- name: bytes_removed(id, at)!
-- They are gone.
UPDATE log_archive SET removed_at = :at WHERE id = :id;

-- name: archives(group_name, after_day, after_id, most)
-- A group's archives, oldest first, without those that were replaced.
SELECT * FROM log_archive WHERE group_name = :group_name AND replaced_by IS NULL AND (day, id) > (:after_day, :after_id)
ORDER BY day, id LIMIT :most;

-- name: archive(id)^
-- One archive.
SELECT * FROM log_archive WHERE id = :id;

-- name: group_for_deletion(name)^
-- The group, locked against everybody who would change it; nothing of one that is deleted.
SELECT workspace, name, revision, retired_at, created_at FROM model_group
WHERE name = :name AND deleted_at IS NULL FOR UPDATE;

-- name: ramp_is_running(name)$
-- True when a ramp of the group is not over.
SELECT EXISTS (SELECT FROM ramp WHERE group_name = :name AND phase IN ('running', 'paused', 'watching'));

-- name: ask_deletion(id, workspace, group_name, policy, reason, asked_by, asked_at)!
-- Somebody asks that a group be deleted.
INSERT INTO group_deletion (id, workspace, group_name, policy, reason, asked_by, asked_at)
VALUES (:id, :workspace, :group_name, :policy, :reason, :asked_by, :asked_at);

-- name: retire(name, at)!
-- From here on, no traffic and no change; NULL brings the group back.
UPDATE model_group SET retired_at = :at WHERE name = :name;

-- name: deletion_of(name)^
-- The group's deletion: the one that is open, or the latest.
SELECT * FROM group_deletion WHERE group_name = :name ORDER BY (done_at IS NULL AND kept_at IS NULL) DESC, asked_at DESC LIMIT 1;

-- name: agree_deletion(id, who, at)!
-- A second person agrees.
UPDATE group_deletion SET agreed_by = :who, agreed_at = :at WHERE id = :id;

-- name: keep_group(id, who, at)!
-- The group is not deleted after all.
UPDATE group_deletion SET kept_by = :who, kept_at = :at WHERE id = :id;

-- name: deletions_due(asked_before)
-- Deletions that nobody has to agree to any more, of every workspace, once what was on its way has arrived.
SELECT id, workspace, group_name, policy, asked_by, reason FROM group_deletion
WHERE done_at IS NULL AND kept_at IS NULL AND asked_at <= :asked_before AND (policy = 'archive' OR agreed_at IS NOT NULL)
ORDER BY asked_at;

-- name: open_deletion(id)^
-- The deletion if it is still to be done, locked.
SELECT * FROM group_deletion WHERE id = :id AND done_at IS NULL AND kept_at IS NULL FOR UPDATE SKIP LOCKED;

-- name: drop_log(name)$
-- Remove the group's table, view, words and keys; how many rows there were.
SELECT drop_inference_log(:name);

-- name: end_group(name, at)!
-- The group is deleted; its history and its name stay.
UPDATE model_group SET deleted_at = :at WHERE name = :name;

-- name: end_deletion(id, at, row_count)!
-- It is done.
UPDATE group_deletion SET done_at = :at, row_count = :row_count WHERE id = :id;

-- name: archived_rows(name)$
-- How many rows of the group stand in archives.
SELECT coalesce(sum(row_count), 0)::bigint FROM log_archive WHERE group_name = :name AND replaced_by IS NULL;

-- name: groups_with_rows()
-- Names of the workspace's groups that have a table, in their order.
SELECT name FROM model_group WHERE deleted_at IS NULL ORDER BY name;

-- name: erase_rows(name, units, filters)^
-- Remove rows and the words about them: row_count, word_count, digest.
SELECT * FROM erase_rows(:name, :units, :filters);

-- name: unplaced_rows(name)
-- Rows of the group that no table took.
SELECT id, record FROM unplaced_row WHERE group_name = :name;

-- name: erase_unplaced(ids)!
-- Remove rows that no table took.
DELETE FROM unplaced_row WHERE id = ANY (:ids);

-- name: add_erasure(id, workspace, groups, salt, subjects, filters, reason, who, at, receipt)!
-- Keep what was erased on whose word.
INSERT INTO erasure (id, workspace, groups, salt, subjects, filters, reason, who, at, receipt)
VALUES (:id, :workspace, :groups, :salt, :subjects, :filters, :reason, :who, :at, :receipt);

-- name: erasure(id)^
-- One erasure.
SELECT id, groups, reason, who, at, receipt, late_rows FROM erasure WHERE id = :id;

-- name: forget_filters(before)!
-- Filters of erasures that no row comes late for any more.
UPDATE erasure SET filters = NULL WHERE filters IS NOT NULL AND at < :before;

-- name: group_keys(name)
-- A group's keys as they are stored.
SELECT kind, value, sealed FROM group_key WHERE group_name = :name;

-- name: add_group_key(workspace, group_name, kind, value, sealed)!
-- A group's key, once.
INSERT INTO group_key (workspace, group_name, kind, value, sealed)
VALUES (:workspace, :group_name, :kind, :value, :sealed) ON CONFLICT DO NOTHING;
