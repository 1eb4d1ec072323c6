-- name: insert_deltas(workspace, group_name, starts, revisions, assets, versions, digests, routes, bodies)!
-- Additions to a group's aggregates, an array a column.
INSERT INTO comparison_delta (workspace, group_name, start, revision, asset, version, digest, route, body)
SELECT :workspace, :group_name, d.start, d.revision, d.asset, d.version, d.digest, d.route, d.body::json
FROM unnest(:starts::timestamptz[], :revisions::bigint[], :assets::text[], :versions::integer[], :digests::text[], :routes::text[], :bodies::text[])
    AS d (start, revision, asset, version, digest, route, body);

-- name: groups_with_deltas()
-- Groups of every workspace with additions that were not folded yet.
SELECT DISTINCT workspace, group_name FROM comparison_delta;

-- name: lock_fold(group_name)$
-- One folder a group at a time, until the transaction ends; false when another one is at it.
SELECT pg_try_advisory_xact_lock(hashtextextended('comparison/' || :group_name, 0));

-- name: take_deltas(group_name, most)
-- Take the group's oldest additions away.
DELETE FROM comparison_delta WHERE id IN (
    SELECT id FROM comparison_delta WHERE group_name = :group_name ORDER BY id LIMIT :most)
RETURNING id, start, revision, asset, version, digest, route, body::text;

-- name: sums_at(group_name, grains, starts, revisions, assets, versions, digests, routes)
-- The folded sums at these keys, as far as there are any.
SELECT s.grain, s.start, s.revision, s.asset, s.version, s.digest, s.route, s.body::text
FROM unnest(:grains::smallint[], :starts::timestamptz[], :revisions::bigint[], :assets::text[], :versions::integer[], :digests::text[], :routes::text[])
    AS k (grain, start, revision, asset, version, digest, route)
JOIN comparison_sum s ON s.group_name = :group_name AND s.grain = k.grain AND s.start = k.start AND s.revision = k.revision
    AND s.asset = k.asset AND s.version = k.version AND s.digest = k.digest AND s.route = k.route;

-- name: put_sums(workspace, group_name, grains, starts, revisions, assets, versions, digests, routes, bodies, last_delta)!
-- Put the folded sums in place of what was there.
INSERT INTO comparison_sum (workspace, group_name, grain, start, revision, asset, version, digest, route, body, last_delta)
SELECT :workspace, :group_name, k.grain, k.start, k.revision, k.asset, k.version, k.digest, k.route, k.body::json, :last_delta
FROM unnest(:grains::smallint[], :starts::timestamptz[], :revisions::bigint[], :assets::text[], :versions::integer[], :digests::text[], :routes::text[], :bodies::text[])
    AS k (grain, start, revision, asset, version, digest, route, body)
ON CONFLICT (group_name, grain, start, revision, asset, version, digest, route)
DO UPDATE SET body = excluded.body, last_delta = excluded.last_delta;

-- name: prune_sums(minutes_before, hours_before)!
-- Forget minutes and hours whose days are kept.
DELETE FROM comparison_sum WHERE (grain = 1 AND start < :minutes_before) OR (grain = 60 AND start < :hours_before);

-- name: sums_between(group_name, grains, since, until, first, last)
-- Folded sums of the spans given by grain, and what was not folded yet between first and last; one snapshot of both.
SELECT s.revision, s.asset, s.version, s.digest, s.route, s.body::text
FROM unnest(:grains::smallint[], :since::timestamptz[], :until::timestamptz[]) AS span (grain, since, until)
JOIN comparison_sum s ON s.group_name = :group_name AND s.grain = span.grain AND s.start >= span.since AND s.start < span.until
UNION ALL
SELECT d.revision, d.asset, d.version, d.digest, d.route, d.body::text
FROM comparison_delta d WHERE d.group_name = :group_name AND d.start >= :first AND d.start < :last;

-- name: stamp(group_name)$
-- Grows with every addition to a group, folded or not.
SELECT greatest(
    (SELECT max(id) FROM comparison_delta WHERE group_name = :group_name),
    (SELECT max(last_delta) FROM comparison_sum WHERE group_name = :group_name AND grain = 0), 0);

-- name: waiting_requests(group_name, most)
-- Requests with words of the last hour whose row was looked for in vain.
SELECT request_id FROM feedback
WHERE group_name = :group_name AND next_try_at IS NOT NULL AND tries > 0 AND received_at > now() - interval '1 hour'
LIMIT :most;

-- name: wake_words(group_name, request_ids)!
-- Their rows are here: look again at once.
UPDATE feedback SET next_try_at = now() WHERE id IN (
    SELECT id FROM feedback
    WHERE group_name = :group_name AND next_try_at IS NOT NULL AND tries > 0 AND request_id = ANY (:request_ids)
    FOR UPDATE SKIP LOCKED);

-- name: insert_shadowed(workspace, group_name, request_ids)!
-- Requests whose shadows' rows come with this transaction.
INSERT INTO comparison_shadowed (workspace, group_name, request_ids) VALUES (:workspace, :group_name, :request_ids);

-- name: groups_with_shadowed()
-- Groups of every workspace where words may have counted before a shadow's row came.
SELECT DISTINCT workspace, group_name FROM comparison_shadowed;

-- name: take_shadowed(group_name, most)
-- Take the group's oldest batches of requests with shadows away.
DELETE FROM comparison_shadowed WHERE id IN (
    SELECT id FROM comparison_shadowed WHERE group_name = :group_name ORDER BY id LIMIT :most)
RETURNING request_ids;

-- name: groups_with_due_words()
-- Groups of every workspace with words to be looked at now.
SELECT DISTINCT workspace, group_name FROM (
    SELECT workspace, group_name FROM feedback WHERE next_try_at <= now() ORDER BY next_try_at LIMIT 20000) AS due;

-- name: take_due_words(group_name, most)
-- Words to be looked at now, the earliest first.
SELECT id, request_id, metric, value, label, received_at FROM feedback
WHERE group_name = :group_name AND next_try_at <= now()
ORDER BY received_at, id LIMIT :most FOR UPDATE SKIP LOCKED;

-- name: rows_spoken_of(group_name, request_ids)
-- The rows that words are about, as far as they are there.
SELECT * FROM rows_spoken_of(:group_name, :request_ids);

-- name: counted_words(group_name, request_ids)
-- What counts of these requests so far. `held` is what is now locked until the end of the transaction: the rest is being
-- erased, by somebody who may wait for words that we hold, so that nothing here waits for them.
WITH held AS MATERIALIZED (
    SELECT id FROM feedback
    WHERE group_name = :group_name AND request_id = ANY (:request_ids) AND counted FOR UPDATE SKIP LOCKED)
SELECT id, request_id, metric, value, label, received_at, counted_by_weight, counted_rows,
       id IN (SELECT id FROM held) AS held
FROM feedback WHERE group_name = :group_name AND request_id = ANY (:request_ids) AND counted;

-- name: settle_words(counted, row_ids, past)!
-- From now on the first count for these rows, a word as often as it has rows; the others are history.
UPDATE feedback f SET next_try_at = NULL, counted = s.row_ids IS NOT NULL, counted_rows = s.row_ids, counted_by_weight = false
FROM (
    SELECT c.id, array_agg(c.row_id) FROM unnest(:counted::uuid[], :row_ids::uuid[]) AS c (id, row_id) GROUP BY c.id
    UNION ALL SELECT unnest(:past::uuid[]), NULL) AS s (id, row_ids)
WHERE f.id = s.id;

-- name: postpone_words(ids, most_s, give_up_days)!
-- Their rows are not there yet: look again later and later, and not for ever.
UPDATE feedback SET tries = least(tries + 1, 100), next_try_at = CASE
    WHEN received_at > now() - make_interval(days => :give_up_days)
    THEN now() + make_interval(secs => least(0.25 * 2 ^ least(tries, 20), :most_s)) END
WHERE id = ANY (:ids);

-- name: mark_moved(workspace, group_name)!
-- A group's sums moved.
INSERT INTO group_measured AS m (workspace, group_name, moved) VALUES (:workspace, :group_name, 1)
ON CONFLICT (group_name) DO UPDATE SET moved = m.moved + 1;

-- name: groups_to_tell(before)
-- Groups of every workspace that moved since they were last told of, where that was before.
SELECT workspace, group_name FROM group_measured WHERE moved > told AND (until IS NULL OR until <= :before);

-- name: claim_telling(group_name, before, now)$
-- Tell of a group up to now, if it is due and nobody else is at it: the row is held until the end of the transaction.
UPDATE group_measured SET told = moved, until = greatest(until, :now) WHERE group_name = (
    SELECT group_name FROM group_measured
    WHERE group_name = :group_name AND moved > told AND (until IS NULL OR until <= :before) FOR UPDATE SKIP LOCKED)
RETURNING until;
