-- Inference tables partitioned by day, filled by COPY from the gateways' spools.

-- What becomes of a request when its gateway's spool is full: `refuse` it with 503, or answer it and `drop` its row,
-- counted. Rows older than `retention_days` go, a day at a time; NULL keeps them for ever.
ALTER TABLE model_group
    ADD COLUMN when_spool_full text NOT NULL DEFAULT 'refuse' CHECK (when_spool_full IN ('refuse', 'drop')),
    ADD COLUMN retention_days integer CHECK (retention_days >= 1);

-- How far each spool is in the tables: the position moves in the transaction that its rows are in.
CREATE TABLE spool_position (
    spool      uuid PRIMARY KEY,
    segment    bigint NOT NULL CHECK (segment >= 1),
    byte_offset bigint NOT NULL CHECK (byte_offset >= 0),
    row_count  bigint NOT NULL DEFAULT 0,
    moved_at   timestamptz NOT NULL DEFAULT now()
);
-- Not of one workspace: a spool holds the rows of all that its gateway serves. No text of any row is in it.

-- Rows that no inference table takes, as they were in the spool: of a group that is gone, or of no form that Postgres
-- knows. `record` is the tuple in the binary COPY format.
CREATE TABLE unplaced_row (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace  text NOT NULL,
    group_name text NOT NULL,
    error      text NOT NULL,
    record     bytea NOT NULL,
    at         timestamptz NOT NULL DEFAULT now()
);
SELECT mintmark_protect('unplaced_row');

-- A group's inference table. One row a request, failed ones and shadows too.
--   request_id         the gateway's own id of the request (UUIDv7); shadow_of: whose shadow a row is
--   received_at        when its last byte was in; the day of it (UTC) is the row's partition
--   status, error_code as the caller saw them; latency_ms the whole of it, upstream_ms the answering attempt
--   ttft_ms            from the request to the first byte of a streamed answer
--   asset, version, digest, arm   who served it, and as what: champion, challenger, shadow. Null when nobody did
--   unit               whom stickiness holds on to; revision: the group's, as the gateway had it
--   score, prediction  the positive class's probability and the label of the request's first row
--   requester          who asked; client_request_id: the caller's own id (x-request-id); tags: what the caller said of it
--   protocol           open-inference, openai-chat, …; attempts: how many upstreams were asked
--   features           the first row's value of each of the model's inputs
--   input, output      as sent and answered; SHAP values stand apart in shap
-- The CHECK holds a row to its group's workspace even where row-level security is widened. Index names do not begin
-- like a table's name, so that the groups `a` and `a-pkey` cannot meet.
CREATE OR REPLACE FUNCTION create_inference_log(group_name text, group_workspace text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    folded text := replace(group_name, '-', '_');
    log_table text := 'inference_log_' || folded;
BEGIN
    IF group_name !~ '^[a-z][a-z0-9-]{0,47}$' THEN
        RAISE EXCEPTION '% cannot name a group', quote_literal(left(group_name, 60)) USING ERRCODE = 'invalid_name';
    END IF;
    EXECUTE format('CREATE TABLE %I (
        request_id        uuid NOT NULL,
        received_at       timestamptz NOT NULL,
        status            smallint NOT NULL,
        latency_ms        double precision NOT NULL,
        revision          bigint NOT NULL,
        workspace         text NOT NULL CHECK (workspace = %L),
        asset             text,
        version           integer,
        digest            text,
        arm               text,
        unit              text NOT NULL,
        score             double precision,
        prediction        text,
        error_code        text,
        trace_id          text NOT NULL,
        requester         text,
        protocol          text,
        upstream_ms       double precision,
        ttft_ms           double precision,
        attempts          smallint,
        input_tokens      integer,
        output_tokens     integer,
        cost_usd          numeric,
        client_request_id text,
        shadow_of         uuid,
        tags              jsonb,
        features          jsonb,
        input             jsonb,
        output            jsonb,
        shap              jsonb,
        CONSTRAINT %I PRIMARY KEY (request_id, received_at)
    ) PARTITION BY RANGE (received_at)', log_table, group_workspace, 'pk_' || folded);
    EXECUTE format('CREATE INDEX %I ON %I (received_at, request_id)', 'time_' || folded, log_table);
    EXECUTE format('CREATE INDEX %I ON %I (shadow_of) WHERE shadow_of IS NOT NULL', 'shadow_' || folded, log_table);
    PERFORM mintmark_protect(format('%I', log_table)::regclass);
    FOR ahead IN 0..1 LOOP
        PERFORM inference_log_day(group_name, (now() AT TIME ZONE 'UTC')::date + ahead);
    END LOOP;
    RETURN log_table;
END $$;

-- The partition of a group's table for one day (UTC), made when it is not there; NULL when there is no such table.
-- Postgres refuses COPY into a table under row-level security, so the partition has none of its own: what is COPYed
-- into it is held by its CHECK to the one workspace of the group. And nobody reads past the parent's policy: the owner
-- itself may not SELECT from a partition, only from the parent, where the policy is forced.
CREATE FUNCTION inference_log_day(group_name text, day date) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    folded text := replace(group_name, '-', '_');
    log_table text := 'inference_log_' || folded;
    partition text := 'p' || to_char(day, 'YYYYMMDD') || '_' || folded;
BEGIN
    IF to_regclass(format('%I', partition)) IS NOT NULL THEN
        RETURN partition;
    END IF;
    IF to_regclass(format('%I', log_table)) IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('inference_log_day'), hashtext(partition));
    IF to_regclass(format('%I', partition)) IS NULL THEN
        -- Made apart and attached: PARTITION OF would lock the whole table against readers and writers.
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, log_table);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', log_table, partition,
            day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        EXECUTE format('REVOKE SELECT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON %I FROM %I', partition, current_user);
    END IF;
    RETURN partition;
END $$;

-- Partitions ahead of time: today's and tomorrow's of every group.
CREATE FUNCTION inference_log_days_ahead() RETURNS void LANGUAGE sql AS $$
    SELECT inference_log_day(name, (now() AT TIME ZONE 'UTC')::date + ahead)
    FROM model_group, generate_series(0, 1) AS ahead;
$$;

-- Days that are older than their group keeps its rows.
CREATE FUNCTION inference_log_days_due() RETURNS TABLE (workspace text, group_name text, partition text, day date)
LANGUAGE sql STABLE AS $$
    SELECT g.workspace, g.name, c.relname::text, to_date(substr(c.relname, 2, 8), 'YYYYMMDD')
    FROM model_group g
    JOIN pg_inherits i ON i.inhparent = to_regclass(format('%I', g.log_table))
    JOIN pg_class c ON c.oid = i.inhrelid
    WHERE to_date(substr(c.relname, 2, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - g.retention_days;
$$;

CREATE FUNCTION drop_inference_log_day(partition text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS %I', partition);
END $$;

-- Move a spool's position, if it still is where this shipper read from. Of two shippers of one spool, one is told no.
CREATE FUNCTION move_spool(
    p_spool uuid, p_segment bigint, p_offset bigint, p_to_segment bigint, p_to_offset bigint, p_rows bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE spool_position SET segment = p_to_segment, byte_offset = p_to_offset, row_count = row_count + p_rows, moved_at = now()
    WHERE spool = p_spool AND segment = p_segment AND byte_offset = p_offset;
    RETURN FOUND;
END $$;

-- The tables that there are become partitioned, with all their rows; what was not said yet in inference.logged is said.
DO $$
DECLARE
    one record;
    said record;
    old text;
    folded text;
    day date;
BEGIN
    PERFORM set_config('mintmark.workspace', '*', true);
    FOR one IN SELECT * FROM model_group LOOP
        folded := replace(one.name, '-', '_');
        old := 'old_' || folded;
        EXECUTE format('ALTER TABLE %I RENAME TO %I', one.log_table, old);
        EXECUTE format('ALTER INDEX %I RENAME TO %I', 'pk_' || folded, 'old_pk_' || folded);
        EXECUTE format('ALTER INDEX %I RENAME TO %I', 'time_' || folded, 'old_time_' || folded);
        PERFORM create_inference_log(one.name, one.workspace);
        FOR day IN EXECUTE format('SELECT DISTINCT (received_at AT TIME ZONE ''UTC'')::date FROM %I', old) LOOP
            PERFORM inference_log_day(one.name, day);
        END LOOP;
        EXECUTE format('INSERT INTO %I (request_id, received_at, status, latency_ms, revision, workspace, asset, version,
                digest, unit, score, prediction, error_code, trace_id, upstream_ms, input, output, shap)
            SELECT request_id, received_at, status, latency_ms, revision, workspace, asset, version, digest, unit, score,
                prediction, error_code, trace_id, upstream_ms, input, output, shap FROM %I', one.log_table, old);
        FOR said IN EXECUTE format('SELECT jsonb_agg(jsonb_build_object(
                    ''request_id'', request_id, ''at'', received_at, ''unit'', unit, ''status'', status,
                    ''latency_ms'', latency_ms, ''score'', score, ''label'', left(prediction, 100),
                    ''asset'', CASE WHEN asset IS NULL THEN NULL
                        ELSE jsonb_build_object(''urn'', asset, ''version'', version, ''digest'', digest) END)) AS rows
                FROM (SELECT l.*, (row_number() OVER (ORDER BY l.tx, l.request_id) - 1) / 300 AS batch
                      FROM %I l JOIN log_cursor c ON c.group_name = $1 AND (l.tx, l.request_id) > (c.tx, c.request_id)) u
                GROUP BY batch ORDER BY batch', old) USING one.name LOOP
            PERFORM emit_events(one.workspace, ARRAY[gen_random_uuid()::text], ARRAY['inference.logged'],
                ARRAY['inference.logged.v1'], ARRAY['mm:group/' || one.name],
                ARRAY[convert_to(jsonb_build_object('group', one.name, 'rows', said.rows)::text, 'UTF8')],
                ARRAY[NULL]::text[], NULL, NULL, NULL);
        END LOOP;
        EXECUTE format('DROP TABLE %I', old);
    END LOOP;
END $$;

DROP FUNCTION take_unsaid_rows(text, integer);
DROP FUNCTION groups_with_unsaid_rows();
DROP TABLE log_cursor;

-- One row of a group, whole.
DROP FUNCTION inference_row(text, uuid);
CREATE FUNCTION inference_row(p_group text, p_request_id uuid)
RETURNS TABLE (
    request_id uuid, received_at timestamptz, unit text, asset text, version integer, digest text, arm text, status smallint,
    error_code text, score double precision, prediction text, latency_ms double precision, upstream_ms double precision,
    ttft_ms double precision, attempts smallint, input_tokens integer, output_tokens integer, cost_usd numeric,
    requester text, client_request_id text, protocol text, shadow_of uuid, trace_id text, revision bigint,
    tags jsonb, features jsonb, input jsonb, output jsonb, shap jsonb
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format($query$
        SELECT request_id, received_at, unit, asset, version, digest, arm, status, error_code, score, prediction,
               latency_ms, upstream_ms, ttft_ms, attempts, input_tokens, output_tokens, cost_usd, requester,
               client_request_id, protocol, shadow_of, trace_id, revision, tags, features, input, output, shap
        FROM %I WHERE request_id = $1
    $query$, 'inference_log_' || replace(p_group, '-', '_')) USING p_request_id;
END $$;

-- A word about a request judges its shadows' rows too.
CREATE OR REPLACE FUNCTION rows_spoken_of(p_group text, p_request_ids uuid[]) RETURNS TABLE (
    spoken_of uuid, route text, request_id uuid, received_at timestamptz, revision bigint, asset text, version integer,
    digest text, unit text, status smallint, error_code text, latency_ms double precision, score double precision,
    prediction text
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format($query$
        SELECT request_id, 'weight', request_id, received_at, revision, asset, version, digest, unit, status, error_code,
               latency_ms, score, prediction
        FROM %1$I WHERE request_id = ANY ($1) AND shadow_of IS NULL
        UNION ALL
        SELECT shadow_of, 'shadow', request_id, received_at, revision, asset, version, digest, unit, status, error_code,
               latency_ms, score, prediction
        FROM %1$I WHERE shadow_of = ANY ($1)
    $query$, 'inference_log_' || replace(p_group, '-', '_')) USING p_request_ids;
END $$;
