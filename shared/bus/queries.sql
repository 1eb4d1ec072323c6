-- The kernel's statements on a service's own tables outbox, inbox, inbox_position and parked.

-- name: park!
-- Keep an event for later, behind what already waits of its key.
INSERT INTO parked (
    workspace, consumer, topic, key, partition, "offset", timestamp_ms, source, event_id, headers, data,
    attempts, error_code, error, next_try_at
) VALUES (
    :workspace, :consumer, :topic, :key, :partition, :position, :timestamp_ms, :source, :event_id, :headers, :data,
    :attempts, :error_code, :error, now() + make_interval(secs => :wait_s)
);

-- name: claim_parked!
-- Note in the inbox that an event is parked; touches nothing when it was taken in before, unless it is dead.
INSERT INTO inbox (workspace, consumer, source, event_id, outcome)
VALUES (:workspace, :consumer, :source, :event_id, 'parked')
ON CONFLICT (event_id, source, consumer, workspace) DO UPDATE SET outcome = 'parked', at = now()
WHERE inbox.outcome = 'dead';

-- name: due_heads
-- The first parked event of each key, where it is due.
SELECT head.* FROM (
    SELECT DISTINCT ON (workspace, topic, key) * FROM parked
    WHERE consumer = :consumer ORDER BY workspace, topic, key, id
) AS head
WHERE head.next_try_at <= now() ORDER BY head.next_try_at LIMIT 100;

-- name: parked_and_dead^
-- How many events of a consumer wait, and how many are dead.
SELECT
    (SELECT count(*) FROM parked WHERE consumer = :consumer) AS parked,
    (SELECT count(*) FROM inbox WHERE consumer = :consumer AND outcome = 'dead') AS dead;

-- name: lock_parked$
-- True when the parked event is ours to try.
SELECT true FROM parked WHERE id = :id FOR UPDATE SKIP LOCKED;

-- name: unpark!
-- The parked event was handled or is dead.
DELETE FROM parked WHERE id = :id;

-- name: retry_later!
-- One more try failed.
UPDATE parked SET attempts = :attempts, error_code = :error_code, error = :error,
    next_try_at = now() + make_interval(secs => :wait_s)
WHERE id = :id;

-- name: settle!
-- A parked event was handled after all.
UPDATE inbox SET outcome = 'handled', at = now()
WHERE event_id = :event_id AND source = :source AND consumer = :consumer AND workspace = :workspace;

-- name: advance_position!
-- Its aggregate has come at least this far.
INSERT INTO inbox_position AS known (workspace, consumer, source, topic, key, sequence)
VALUES (:workspace, :consumer, :source, :topic, :key, :sequence)
ON CONFLICT (key, topic, source, consumer, workspace) DO UPDATE SET sequence = EXCLUDED.sequence
WHERE known.sequence < EXCLUDED.sequence;

-- name: send_dead_letter!
-- A dead letter goes the way of every event: through the outbox, with headers of its own.
INSERT INTO outbox (workspace, event_id, topic, type, key, data, headers)
VALUES (:workspace, :event_id, :topic, :type, :key, :data, :headers);

-- name: make_dead_letter!
-- An event of the outbox goes to the dead letters instead of its topic, at its place.
UPDATE outbox SET topic = :topic, headers = :headers WHERE id = :id;

-- name: mark_dead!
-- The inbox remembers that an event is dead, so that a replay lets it in once more.
INSERT INTO inbox (workspace, consumer, source, event_id, outcome)
VALUES (:workspace, :consumer, :source, :event_id, 'dead')
ON CONFLICT (event_id, source, consumer, workspace) DO UPDATE SET outcome = 'dead', at = now();
