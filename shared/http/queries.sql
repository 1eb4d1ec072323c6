-- Idempotency keys of a service's POST requests.

-- name: claim_key$
-- True when the key is new; the row commits or vanishes with the request's effect.
WITH made AS (
    INSERT INTO idempotency (workspace, principal, key, request) VALUES (:workspace, :principal, :key, :request)
    ON CONFLICT DO NOTHING RETURNING 1
)
SELECT EXISTS (SELECT FROM made);

-- name: key_before^
-- What was asked and answered with this key before.
SELECT request, status, headers, body FROM idempotency
WHERE workspace = :workspace AND principal = :principal AND key = :key;

-- name: remember_answer!
-- Keep the answer for whoever asks the same again.
UPDATE idempotency SET status = :status, headers = :headers, body = :body
WHERE workspace = :workspace AND principal = :principal AND key = :key;
