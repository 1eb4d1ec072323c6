-- name: lease_cap(workspace, scope, unit, starts_at, ends_at, cap, need, more)^
-- Take what is needed of a cap, and some ahead of need; see migration 0010.
SELECT * FROM lease_cap(:workspace, :scope, :unit, :starts_at, :ends_at, :cap, :need, :more);

-- name: return_cap(workspace, scope, unit, starts_at, ends_at, amount)!
-- What was leased and not needed; negative where more was spent than leased.
UPDATE cap_counter SET taken = taken - :amount
WHERE (workspace, scope, unit, starts_at, ends_at) = (:workspace, :scope, :unit, :starts_at, :ends_at);

-- name: say(workspace, ids, topics, types, keys, data, proofs)$
-- Events into the outbox.
SELECT emit_events(:workspace, :ids, :topics, :types, :keys, :data, :proofs, NULL, NULL, NULL);

-- name: wake_relay(channel)$
-- The outbox holds more.
SELECT pg_notify(:channel, '');
