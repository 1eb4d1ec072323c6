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
