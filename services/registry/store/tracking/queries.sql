-- name: add_experiment(workspace, name, location, tags, at)^
-- A new experiment; nothing where the name is taken, by a deleted one, too.
INSERT INTO experiment (workspace, name, artifact_location, tags, created_at, updated_at)
VALUES (:workspace, :name, :location, :tags, :at, :at) ON CONFLICT (workspace, name) DO NOTHING RETURNING *;

-- name: add_default(workspace, at)!
-- The experiment that every workspace has.
INSERT INTO experiment (workspace, id, name, tags, created_at, updated_at)
VALUES (:workspace, 0, 'Default', '{}', :at, :at) ON CONFLICT DO NOTHING;

-- name: experiment(workspace, id)^
-- One experiment.
SELECT * FROM experiment WHERE workspace = :workspace AND id = :id;

-- name: hold_experiment(workspace, id)^
-- One experiment, held until commit.
SELECT * FROM experiment WHERE workspace = :workspace AND id = :id FOR UPDATE;

-- name: experiment_by_name(workspace, name)^
-- The experiment of a name, deleted or not.
SELECT * FROM experiment WHERE workspace = :workspace AND name = :name;

-- name: experiments(workspace, most)
-- Experiments, last changed first.
SELECT * FROM experiment WHERE workspace = :workspace ORDER BY updated_at DESC, id DESC LIMIT :most;

-- name: put_experiment(workspace, id, name, tags, updated_at, deleted_at)!
-- A held experiment as it is now.
UPDATE experiment SET name = :name, tags = :tags, updated_at = :updated_at, deleted_at = :deleted_at
WHERE workspace = :workspace AND id = :id;

-- name: mark_runs(workspace, experiment, deleted_at)!
-- Runs go and come back with their experiment.
UPDATE run SET deleted_at = :deleted_at WHERE workspace = :workspace AND experiment = :experiment;

-- name: add_run(workspace, run_id, experiment, name, status, user_name, started_ms, ended_ms, tags, params, config, config_digest, signer, signer_proven, at)!
-- A new run.
INSERT INTO run (workspace, run_id, experiment, name, status, user_name, started_ms, ended_ms, tags, params, config, config_digest,
                 signer, signer_proven, created_at)
VALUES (:workspace, :run_id, :experiment, :name, :status, :user_name, :started_ms, :ended_ms, :tags, :params, :config, :config_digest,
        :signer, :signer_proven, :at);

-- name: run(workspace, run_id)^
-- One run with its latest metrics.
SELECT r.*, e.artifact_location, m.* FROM run AS r
JOIN experiment AS e ON e.workspace = r.workspace AND e.id = r.experiment, LATERAL (
    SELECT array_agg(key ORDER BY key) AS keys, array_agg(value ORDER BY key) AS values,
           array_agg(timestamp_ms ORDER BY key) AS times, array_agg(step ORDER BY key) AS steps
    FROM latest_metric AS l WHERE l.workspace = r.workspace AND l.owner = r.run_id) AS m
WHERE r.workspace = :workspace AND r.run_id = :run_id;

-- name: hold_run(workspace, run_id)^
-- A run, held until commit.
SELECT true FROM run WHERE workspace = :workspace AND run_id = :run_id FOR UPDATE;

-- name: runs(workspace, experiments, deleted, offset, most)
-- Runs of some experiments with their latest metrics, last started first; deleted ones or others, NULL for both.
SELECT r.*, e.artifact_location, m.* FROM run AS r
JOIN experiment AS e ON e.workspace = r.workspace AND e.id = r.experiment, LATERAL (
    SELECT array_agg(key ORDER BY key) AS keys, array_agg(value ORDER BY key) AS values,
           array_agg(timestamp_ms ORDER BY key) AS times, array_agg(step ORDER BY key) AS steps
    FROM latest_metric AS l WHERE l.workspace = r.workspace AND l.owner = r.run_id) AS m
WHERE r.workspace = :workspace AND r.experiment = ANY(:experiments::bigint[])
AND (:deleted::boolean IS NULL OR (r.deleted_at IS NOT NULL) = :deleted)
ORDER BY r.started_ms DESC, r.run_id OFFSET :offset LIMIT :most;

-- name: put_run(workspace, run_id, name, status, ended_ms, tags, params, inputs, model_inputs, model_outputs, deleted_at)!
-- A held run as it is now.
UPDATE run SET name = :name, status = :status, ended_ms = :ended_ms, tags = :tags, params = :params, inputs = :inputs,
    model_inputs = :model_inputs, model_outputs = :model_outputs, deleted_at = :deleted_at
WHERE workspace = :workspace AND run_id = :run_id;

-- name: tell(workspace, run_id, at)$
-- Whether that a run ended is yet to be said; it is said once.
UPDATE run SET told_at = :at WHERE workspace = :workspace AND run_id = :run_id AND told_at IS NULL RETURNING true;

-- name: log_metrics(workspace, owner, keys, values, times, steps)!
-- Values of metrics, and the latest of each.
WITH given AS (
    SELECT DISTINCT key, value, timestamp_ms, step FROM unnest(
        :keys::text[], :values::float8[], :times::bigint[], :steps::bigint[]) AS g (key, value, timestamp_ms, step)),
kept AS (
    INSERT INTO metric_point (workspace, owner, key, step, timestamp_ms, value)
    SELECT :workspace::text, :owner::text, key, step, timestamp_ms, value FROM given ON CONFLICT DO NOTHING)
INSERT INTO latest_metric AS known (workspace, owner, key, step, timestamp_ms, value)
SELECT DISTINCT ON (key) :workspace::text, :owner::text, key, step, timestamp_ms, value FROM given
ORDER BY key, step DESC, timestamp_ms DESC, value DESC
ON CONFLICT (workspace, owner, key) DO UPDATE SET
    step = excluded.step, timestamp_ms = excluded.timestamp_ms, value = excluded.value
WHERE (excluded.step, excluded.timestamp_ms, excluded.value) > (known.step, known.timestamp_ms, known.value);

-- name: metric_history(workspace, owner, key, offset, most)
-- Values of one metric in the order of their times.
SELECT * FROM metric_point WHERE workspace = :workspace AND owner = :owner AND key = :key
ORDER BY timestamp_ms, step, value OFFSET :offset LIMIT :most;

-- name: add_logged_model(workspace, model_id, experiment, name, model_type, source_run_id, status, tags, params, at)!
-- A model that is being logged.
INSERT INTO logged_model (workspace, model_id, experiment, name, model_type, source_run_id, status, tags, params, created_at, updated_at)
VALUES (:workspace, :model_id, :experiment, :name, :model_type, :source_run_id, :status, :tags, :params, :at, :at);

-- name: logged_model(workspace, model_id)^
-- One logged model with its latest metrics.
SELECT l.*, e.artifact_location, m.* FROM logged_model AS l
JOIN experiment AS e ON e.workspace = l.workspace AND e.id = l.experiment, LATERAL (
    SELECT array_agg(key ORDER BY key) AS keys, array_agg(value ORDER BY key) AS values,
           array_agg(timestamp_ms ORDER BY key) AS times, array_agg(step ORDER BY key) AS steps
    FROM latest_metric AS p WHERE p.workspace = l.workspace AND p.owner = l.model_id) AS m
WHERE l.workspace = :workspace AND l.model_id = :model_id AND l.deleted_at IS NULL;

-- name: logged_models(workspace, experiments, before, after, most)
-- Logged models of some experiments, newest first, after one that was made `before` and has the id `after`.
SELECT l.*, e.artifact_location, m.* FROM (
    SELECT * FROM logged_model WHERE workspace = :workspace AND experiment = ANY(:experiments::bigint[])
    AND deleted_at IS NULL AND created_at <= coalesce(:before::timestamptz, 'infinity')
    AND (created_at < coalesce(:before::timestamptz, 'infinity') OR model_id > :after::text)
    ORDER BY created_at DESC, model_id LIMIT :most) AS l
JOIN experiment AS e ON e.workspace = l.workspace AND e.id = l.experiment, LATERAL (
    SELECT array_agg(key ORDER BY key) AS keys, array_agg(value ORDER BY key) AS values,
           array_agg(timestamp_ms ORDER BY key) AS times, array_agg(step ORDER BY key) AS steps
    FROM latest_metric AS p WHERE p.workspace = l.workspace AND p.owner = l.model_id) AS m
ORDER BY l.created_at DESC, l.model_id;

-- name: hold_logged_model(workspace, model_id)^
-- A logged model, held until commit.
SELECT true FROM logged_model WHERE workspace = :workspace AND model_id = :model_id AND deleted_at IS NULL FOR UPDATE;

-- name: put_logged_model(workspace, model_id, status, tags, params, updated_at, deleted_at)!
-- A held logged model as it is now.
UPDATE logged_model SET status = :status, tags = :tags, params = :params, updated_at = :updated_at, deleted_at = :deleted_at
WHERE workspace = :workspace AND model_id = :model_id;

-- name: put_file(workspace, path, digest, size, at)!
-- What stands at a path from now on.
INSERT INTO tracked_file (workspace, path, digest, size, at) VALUES (:workspace, :path, :digest, :size, :at)
ON CONFLICT (workspace, path) DO UPDATE SET digest = excluded.digest, size = excluded.size, at = excluded.at;

-- name: file(workspace, path)^
-- One file.
SELECT * FROM tracked_file WHERE workspace = :workspace AND path = :path;

-- name: files_below(workspace, first, last, most)
-- Files whose path lies in a range.
SELECT * FROM tracked_file WHERE workspace = :workspace AND path >= :first AND path < :last ORDER BY path LIMIT :most;

-- name: remove_files(workspace, path, first, last)!
-- A file, and everything below where it is a folder.
DELETE FROM tracked_file WHERE workspace = :workspace AND (path = :path OR (path >= :first AND path < :last));
