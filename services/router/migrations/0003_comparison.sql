-- Aggregates of every group's rows and labels, and which words about a request still wait to be counted.

-- Additions since the last fold, one row a batch and key; a correction's are negative. Only ever inserted and folded
-- away, so that whoever records rows never waits for another. `asset` is '' and `version` 0 where none was chosen.
CREATE TABLE comparison_delta (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace  text NOT NULL,
    group_name text NOT NULL REFERENCES model_group (name),
    start      timestamptz NOT NULL,
    revision   bigint NOT NULL,
    asset      text NOT NULL,
    version    integer NOT NULL,
    digest     text NOT NULL,
    route      text NOT NULL,
    body       json NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX comparison_delta_of_group ON comparison_delta (group_name, start);
SELECT mintmark_protect('comparison_delta');

-- The folded sums, once for each grain: minutes (1), hours (60), days (1440) and for ever (0, which starts in 1970).
-- `last_delta` is the latest addition that went in: a view is old when a later one is there.
CREATE TABLE comparison_sum (
    workspace  text NOT NULL,
    group_name text NOT NULL REFERENCES model_group (name),
    grain      smallint NOT NULL CHECK (grain IN (0, 1, 60, 1440)),
    start      timestamptz NOT NULL,
    revision   bigint NOT NULL,
    asset      text NOT NULL,
    version    integer NOT NULL,
    digest     text NOT NULL,
    route      text NOT NULL,
    body       json NOT NULL,
    last_delta bigint NOT NULL,
    PRIMARY KEY (group_name, grain, start, revision, asset, version, digest, route)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
SELECT mintmark_protect('comparison_sum');

-- A word waits until its row is there: `next_try_at` is NULL once it was counted or given up. Of the words about one
-- request and metric the latest is counted, the others are history.
ALTER TABLE feedback
    ADD COLUMN next_try_at timestamptz DEFAULT now(),
    ADD COLUMN tries smallint NOT NULL DEFAULT 0,
    ADD COLUMN counted boolean NOT NULL DEFAULT false;
CREATE INDEX feedback_counted ON feedback (group_name, request_id) WHERE counted;
CREATE INDEX feedback_due ON feedback (next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX feedback_waiting ON feedback (group_name, received_at) WHERE next_try_at IS NOT NULL AND tries > 0;

-- The rows that words about these requests judge, as far as they are there: `spoken_of` is the request named, `route` how
-- the row's version was chosen (comparison/aggregates.py).
CREATE FUNCTION rows_spoken_of(p_group text, p_request_ids uuid[]) RETURNS TABLE (
    spoken_of uuid, route text, request_id uuid, received_at timestamptz, revision bigint, asset text, version integer,
    digest text, unit text, status smallint, error_code text, latency_ms double precision, score double precision,
    prediction text
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format($query$
        SELECT request_id, 'weight', request_id, received_at, revision, asset, version, digest, unit, status, error_code,
               latency_ms, score, prediction
        FROM %I WHERE request_id = ANY ($1)
    $query$, 'inference_log_' || replace(p_group, '-', '_')) USING p_request_ids;
END $$;

-- Traffic that is sent to a version beside the one that answers: [{"urn": …, "version": 3, "digest": "sha256:…", "share_bp": 1000}]
ALTER TABLE group_revision ADD COLUMN shadows jsonb NOT NULL DEFAULT '[]';
ALTER TABLE group_revision DROP CONSTRAINT group_revision_change_check;
ALTER TABLE group_revision ADD CONSTRAINT group_revision_change_check
    CHECK (change IN ('created', 'weighted', 'promoted', 'rolled_back', 'mirrored'));

-- A plan by which traffic moves to a challenger, or among several, and how far it is (ramps/). One at a time in a group.
-- `revision` is the group's after the ramp's own last change: at another one somebody else was at the group. A worker
-- holds a ramp until `lease_until`; `next_at` is when there is something to look at, NULL when only a person moves it on.
CREATE TABLE ramp (
    id          uuid PRIMARY KEY,
    workspace   text NOT NULL,
    group_name  text NOT NULL REFERENCES model_group (name),
    plan        jsonb NOT NULL,
    state       jsonb NOT NULL,
    phase       text NOT NULL CHECK (phase IN ('running', 'paused', 'watching', 'completed', 'aborted', 'rolled_back')),
    revision    bigint NOT NULL,
    first_revision bigint NOT NULL,
    who         text NOT NULL,
    who_proven  boolean NOT NULL,
    created_at  timestamptz NOT NULL,
    next_at     timestamptz,
    lease_until timestamptz,
    lease_owner uuid
);
CREATE UNIQUE INDEX ramp_one_a_group ON ramp (group_name) WHERE phase IN ('running', 'paused', 'watching');
CREATE INDEX ramp_due ON ramp (next_at) WHERE phase IN ('running', 'paused', 'watching') AND next_at IS NOT NULL;
CREATE INDEX ramp_of_group ON ramp (group_name, created_at);
SELECT mintmark_protect('ramp');

-- What a ramp did and why, in order.
CREATE TABLE ramp_entry (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace text NOT NULL,
    ramp_id   uuid NOT NULL REFERENCES ramp (id),
    at        timestamptz NOT NULL,
    what      text NOT NULL,
    details   jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ramp_entry_of_ramp ON ramp_entry (ramp_id, id);
SELECT mintmark_protect('ramp_entry');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ramp_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

DROP FUNCTION compare_versions(text, timestamptz, timestamptz, integer);
