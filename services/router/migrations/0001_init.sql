-- Model groups, what may be served behind them, and one inference table a group.
-- Runs as the router's role, with search_path set to its schema, after the kernel's migrations.

-- Versions that answer somewhere. `endpoint` is the model server's base URL, `statement` the DSSE envelope of the
-- approval that let the version through: the gateway believes the signature in it and nothing else of this row.
CREATE TABLE served_version (
    workspace     text NOT NULL,
    urn           text NOT NULL,
    version       integer NOT NULL CHECK (version >= 1),
    digest        text NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    deployment_id uuid NOT NULL,
    target        text NOT NULL,
    endpoint      text NOT NULL,
    model_name    text NOT NULL,
    statement     jsonb NOT NULL,
    signature     jsonb NOT NULL DEFAULT '{}',
    completed_at  timestamptz NOT NULL,
    withdrawn_at  timestamptz,
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workspace, urn, version)
);
SELECT mintmark_protect('served_version');

-- Read model of approval.decided: the last word on a version. A rejection, or an expiry, bars it from being moved to.
CREATE TABLE approval_decision (
    workspace  text NOT NULL,
    urn        text NOT NULL,
    version    integer NOT NULL,
    digest     text NOT NULL,
    decision   text NOT NULL CHECK (decision IN ('approved', 'rejected')),
    reason     text NOT NULL,
    statement  jsonb,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn, version)
);
SELECT mintmark_protect('approval_decision');

-- A group and the number of the revision in force. Names are unique over all workspaces, because a group is one
-- address and one table. Moving `revision` is the compare-and-swap of every decision about a group.
CREATE TABLE model_group (
    workspace    text NOT NULL,
    name         text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,47}$'),
    log_table    text NOT NULL UNIQUE CHECK (log_table = 'inference_log_' || replace(name, '-', '_')),
    revision     bigint NOT NULL CHECK (revision >= 1),
    unit_header  text NOT NULL DEFAULT 'x-mintmark-unit',
    unit_body_id boolean NOT NULL DEFAULT true,
    created_at   timestamptz NOT NULL
);
SELECT mintmark_protect('model_group');

-- Every state that a group was ever in, whole: what served group G at time T is the last row at or before T.
-- challengers: [{"urn": …, "version": 3, "digest": "sha256:…", "buckets": [[0, 1000], [3000, 3500]]}]
CREATE TABLE group_revision (
    workspace        text NOT NULL,
    group_name       text NOT NULL REFERENCES model_group (name),
    revision         bigint NOT NULL,
    change           text NOT NULL CHECK (change IN ('created', 'weighted', 'promoted', 'rolled_back')),
    champion_urn     text NOT NULL,
    champion_version integer NOT NULL,
    champion_digest  text NOT NULL,
    challengers      jsonb NOT NULL DEFAULT '[]',
    who              text NOT NULL,
    why              text NOT NULL,
    evidence         jsonb NOT NULL DEFAULT '{}',
    at               timestamptz NOT NULL,
    PRIMARY KEY (group_name, revision)
);
CREATE INDEX group_revision_at ON group_revision (group_name, at);
SELECT mintmark_protect('group_revision');

-- What was said about a request afterwards. The latest word on a metric counts, the earlier ones stay as history.
-- `label` is the true label in its one spelling (domain.label_text); other metrics have a number.
CREATE TABLE feedback (
    id          uuid PRIMARY KEY,
    workspace   text NOT NULL,
    group_name  text NOT NULL REFERENCES model_group (name),
    request_id  uuid NOT NULL,
    metric      text NOT NULL,
    value       double precision,
    label       text,
    who         text NOT NULL,
    received_at timestamptz NOT NULL,
    CHECK (num_nonnulls(value, label) >= 1)
);
CREATE INDEX feedback_of_request ON feedback (group_name, metric, request_id, received_at DESC);
SELECT mintmark_protect('feedback');

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only; add a row instead of changing one', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON group_revision
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Gateways hear at commit that their snapshot is old.
CREATE FUNCTION tell_gateways() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('router_snapshot', '');
    RETURN NULL;
END $$;
CREATE TRIGGER tell_gateways AFTER INSERT OR UPDATE OR DELETE ON served_version
    FOR EACH STATEMENT EXECUTE FUNCTION tell_gateways();
CREATE TRIGGER tell_gateways AFTER INSERT OR UPDATE OR DELETE ON model_group
    FOR EACH STATEMENT EXECUTE FUNCTION tell_gateways();

-- How far a group's rows were said in inference.logged: the transaction and the id of the last one.
CREATE TABLE log_cursor (
    workspace  text NOT NULL,
    group_name text PRIMARY KEY REFERENCES model_group (name),
    tx         xid8 NOT NULL DEFAULT '0',
    request_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
);
SELECT mintmark_protect('log_cursor');

-- A group's inference table. One row a request, failed ones too. Index names do not begin like a table's name, so that
-- the groups `a` and `a-pkey` cannot meet. The CHECK holds a row to its group's workspace even where row-level security
-- is widened. Latencies are in milliseconds; `score` is the positive class's probability for the request's first row;
-- `revision` is the group's, as the gateway had it. `tx` is what a reader in order goes by: ids are made before the row
-- is there, and by many processes; but once a transaction is older than every running one, no row of it can appear.
CREATE FUNCTION create_inference_log(group_name text, group_workspace text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    folded text := replace(group_name, '-', '_');
    log_table text := 'inference_log_' || folded;
BEGIN
    IF group_name !~ '^[a-z][a-z0-9-]{0,47}$' THEN
        RAISE EXCEPTION '% cannot name a group', quote_literal(left(group_name, 60)) USING ERRCODE = 'invalid_name';
    END IF;
    EXECUTE format('CREATE TABLE %I (
        request_id  uuid NOT NULL CONSTRAINT %I PRIMARY KEY,
        workspace   text NOT NULL CHECK (workspace = %L),
        received_at timestamptz NOT NULL,
        unit        text NOT NULL,
        asset       text,
        version     integer,
        digest      text,
        status      smallint NOT NULL,
        error_code  text,
        input       jsonb,
        output      jsonb,
        shap        jsonb,
        score       double precision,
        prediction  text,
        latency_ms  double precision NOT NULL,
        upstream_ms double precision,
        trace_id    text NOT NULL,
        revision    bigint NOT NULL,
        tx          xid8 NOT NULL DEFAULT pg_current_xact_id()
    )', log_table, 'pk_' || folded, group_workspace);
    EXECUTE format('CREATE INDEX %I ON %I (received_at, request_id)', 'time_' || folded, log_table);
    EXECUTE format('CREATE INDEX %I ON %I (tx, request_id)', 'tx_' || folded, log_table);
    PERFORM mintmark_protect(format('%I', log_table)::regclass);
    RETURN log_table;
END $$;

-- Groups of every workspace that have rows which were not said yet. Asked often, so it looks and takes nothing.
CREATE FUNCTION groups_with_unsaid_rows() RETURNS TABLE (workspace text, group_name text) LANGUAGE plpgsql AS $$
DECLARE
    behind log_cursor;
    found boolean;
BEGIN
    FOR behind IN SELECT * FROM log_cursor LOOP
        EXECUTE format(
            'SELECT EXISTS (SELECT FROM %I WHERE (tx, request_id) > ($1, $2) AND tx < pg_snapshot_xmin(pg_current_snapshot()))',
            'inference_log_' || replace(behind.group_name, '-', '_')
        ) INTO found USING behind.tx, behind.request_id;
        IF found THEN
            workspace := behind.workspace;
            group_name := behind.group_name;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- Take a group's next rows, in the order of their transactions, and move its cursor past them. The horizon is read
-- first: every transaction below it is over, so all of its rows are seen by what follows. Nothing when another has it.
CREATE FUNCTION take_unsaid_rows(p_group text, p_most integer)
RETURNS TABLE (
    request_id uuid, received_at timestamptz, asset text, version integer, digest text, unit text, status smallint,
    latency_ms double precision, score double precision, prediction text
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    horizon xid8 := pg_snapshot_xmin(pg_current_snapshot());
    behind log_cursor;
    entry record;
BEGIN
    SELECT * INTO behind FROM log_cursor WHERE group_name = p_group FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOR entry IN EXECUTE format(
        'SELECT * FROM %I WHERE (tx, request_id) > ($1, $2) AND tx < $3 ORDER BY tx, request_id LIMIT $4',
        'inference_log_' || replace(p_group, '-', '_')
    ) USING behind.tx, behind.request_id, horizon, p_most LOOP
        behind.tx := entry.tx;
        behind.request_id := entry.request_id;
        request_id := entry.request_id;
        received_at := entry.received_at;
        asset := entry.asset;
        version := entry.version;
        digest := entry.digest;
        unit := entry.unit;
        status := entry.status;
        latency_ms := entry.latency_ms;
        score := entry.score;
        prediction := entry.prediction;
        RETURN NEXT;
    END LOOP;
    UPDATE log_cursor SET tx = behind.tx, request_id = behind.request_id WHERE group_name = p_group;
END $$;

-- A page of a group's rows, newest first, without what is large. A filter that is NULL lets everything through.
CREATE FUNCTION inference_page(
    p_group text, p_since timestamptz, p_until timestamptz, p_asset text, p_version integer, p_status integer, p_unit text,
    p_before timestamptz, p_before_id uuid, p_most integer
) RETURNS TABLE (
    request_id uuid, received_at timestamptz, unit text, asset text, version integer, digest text, status smallint,
    error_code text, score double precision, prediction text, latency_ms double precision,
    upstream_ms double precision, trace_id text, revision bigint
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format($query$
        SELECT request_id, received_at, unit, asset, version, digest, status, error_code, score, prediction, latency_ms,
               upstream_ms, trace_id, revision
        FROM %I
        WHERE received_at >= $1 AND received_at < $2 AND (received_at, request_id) < ($7, $8)
            AND ($3 IS NULL OR asset = $3) AND ($4 IS NULL OR version = $4)
            AND ($5 IS NULL OR status = $5) AND ($6 IS NULL OR unit = $6)
        ORDER BY received_at DESC, request_id DESC LIMIT $9
    $query$, 'inference_log_' || replace(p_group, '-', '_'))
    USING p_since, p_until, p_asset, p_version, p_status, p_unit, p_before, p_before_id, p_most;
END $$;

-- One row of a group, whole.
CREATE FUNCTION inference_row(p_group text, p_request_id uuid)
RETURNS TABLE (
    request_id uuid, received_at timestamptz, unit text, asset text, version integer, digest text, status smallint,
    error_code text, score double precision, prediction text, latency_ms double precision,
    upstream_ms double precision, trace_id text, revision bigint, input jsonb, output jsonb, shap jsonb
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format($query$
        SELECT request_id, received_at, unit, asset, version, digest, status, error_code, score, prediction, latency_ms,
               upstream_ms, trace_id, revision, input, output, shap
        FROM %I WHERE request_id = $1
    $query$, 'inference_log_' || replace(p_group, '-', '_')) USING p_request_id;
END $$;

-- How many of these requests have a row.
CREATE FUNCTION known_requests(p_group text, p_request_ids uuid[]) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    known bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM %I WHERE request_id = ANY ($1)', 'inference_log_' || replace(p_group, '-', '_'))
        INTO known USING p_request_ids;
    RETURN known;
END $$;

-- The versions of a group side by side. n counts every request, errors those answered with 4xx or 5xx, labelled those
-- whose true label is known. AUC is the Mann-Whitney statistic with average ranks for ties (Hanley and McNeil 1982);
-- the positive class is '1'. Percentiles are of answered requests, interpolated, in milliseconds. Of more than p_most
-- rows only the newest are compared, so that a busy group's view costs seconds and not minutes. Nested loops are off:
-- before the first ANALYZE of a young group's table the planner takes it for empty, and 1,400 rows took over 15 s.
CREATE FUNCTION compare_versions(p_group text, p_since timestamptz, p_until timestamptz, p_most integer DEFAULT 200000)
RETURNS TABLE (
    asset text, version integer, digest text, n bigint, errors bigint, labelled bigint, accuracy double precision,
    auc double precision, mean_score double precision, latency_ms_p50 double precision, latency_ms_p99 double precision
) LANGUAGE plpgsql STABLE SET enable_nestloop = off SET jit = off AS $$
BEGIN
    RETURN QUERY EXECUTE format($query$
        WITH compared AS MATERIALIZED (
            SELECT l.request_id, l.asset, l.version, l.digest, l.status, l.score, l.prediction, l.latency_ms
            FROM %I l WHERE l.received_at >= $2 AND l.received_at < $3
            ORDER BY l.received_at DESC, l.request_id DESC LIMIT $4
        ), truth AS MATERIALIZED (
            SELECT DISTINCT ON (f.request_id) f.request_id, f.label
            FROM feedback f JOIN compared USING (request_id)
            WHERE f.group_name = $1 AND f.metric = 'label'
            ORDER BY f.request_id, f.received_at DESC, f.id DESC
        ), entry AS (
            SELECT c.*, truth.label FROM compared c LEFT JOIN truth USING (request_id)
        ), ranked AS (
            SELECT e.asset, e.version, e.digest, e.label = '1' AS positive,
                   rank() OVER (w ORDER BY e.score)
                   + (count(*) OVER (PARTITION BY e.asset, e.version, e.digest, e.score) - 1) / 2.0::float8 AS rank
            FROM entry e WHERE e.status < 400 AND e.score IS NOT NULL AND e.label IN ('0', '1')
            WINDOW w AS (PARTITION BY e.asset, e.version, e.digest)
        ), area AS (
            SELECT r.asset, r.version, r.digest,
                   (sum(r.rank) FILTER (WHERE positive) - count(*) FILTER (WHERE positive)
                       * (count(*) FILTER (WHERE positive) + 1) / 2.0::float8)
                   / nullif(count(*) FILTER (WHERE positive) * count(*) FILTER (WHERE NOT positive), 0) AS auc
            FROM ranked r GROUP BY r.asset, r.version, r.digest
        ), figures AS (
            SELECT e.asset, e.version, e.digest, count(*) AS n, count(*) FILTER (WHERE e.status >= 400) AS errors,
                   count(e.label) FILTER (WHERE e.status < 400) AS labelled,
                   avg((e.prediction = e.label)::int::float8) FILTER (WHERE e.status < 400) AS accuracy,
                   avg(e.score) FILTER (WHERE e.status < 400) AS mean_score,
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY e.latency_ms) FILTER (WHERE e.status < 400) AS p50,
                   percentile_cont(0.99) WITHIN GROUP (ORDER BY e.latency_ms) FILTER (WHERE e.status < 400) AS p99
            FROM entry e GROUP BY e.asset, e.version, e.digest
        )
        SELECT f.asset, f.version, f.digest, f.n, f.errors, f.labelled, f.accuracy, a.auc::float8, f.mean_score, f.p50, f.p99
        FROM figures f LEFT JOIN area a USING (asset, version, digest)
        ORDER BY f.asset, f.version
    $query$, 'inference_log_' || replace(p_group, '-', '_')) USING p_group, p_since, p_until, p_most;
END $$;
