-- Inference tables as people read them: searched by any column, and as a view with one typed column a feature.

-- One unit's rows in the order of time, whoever calls twice with one id of their own, and what failed. Chosen by
-- `make bench-rows`: with 10 million rows everything else is found faster by walking back in time than by an index
-- that every request would have to pay for.
CREATE FUNCTION index_inference_log(group_name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    folded text := replace(group_name, '-', '_');
    log_table text := 'inference_log_' || folded;
BEGIN
    EXECUTE format('CREATE INDEX %I ON %I (unit, received_at, request_id)', 'unit_' || folded, log_table);
    EXECUTE format('CREATE INDEX %I ON %I (client_request_id) WHERE client_request_id IS NOT NULL',
        'client_' || folded, log_table);
    EXECUTE format('CREATE INDEX %I ON %I (received_at, request_id) WHERE status >= 400 OR error_code IS NOT NULL',
        'failed_' || folded, log_table);
END $$;

ALTER FUNCTION create_inference_log(text, text) RENAME TO create_bare_inference_log;

-- The group's table with its indexes and its view; see 0004 for the columns.
CREATE FUNCTION create_inference_log(group_name text, group_workspace text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    log_table text := create_bare_inference_log(group_name, group_workspace);
BEGIN
    PERFORM index_inference_log(group_name);
    PERFORM renew_inference_view(group_name);
    RETURN log_table;
END $$;

-- A condition on a row's columns, from [{"column": "features", "path": ["AGEP"], "op": ">=", "value": "40", "kind":
-- "number"}, …]; `path` only of JSON columns. The caller has checked the values' forms; here every name and operator is
-- one of a closed list and every value a literal, so that nothing else can be said. 'true' without any.
CREATE FUNCTION inference_condition(p_filters jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    one jsonb;
    kind text;
    subject text;
    value text;
    parts text[] := ARRAY['true'];
    path text[];
BEGIN
    FOR one IN SELECT * FROM jsonb_array_elements(coalesce(p_filters, '[]')) LOOP
        kind := CASE
            WHEN one ->> 'column' IN ('request_id', 'shadow_of') THEN 'uuid'
            WHEN one ->> 'column' = 'received_at' THEN 'timestamptz'
            WHEN one ->> 'column' IN ('status', 'version', 'revision', 'attempts', 'input_tokens', 'output_tokens') THEN 'bigint'
            WHEN one ->> 'column' IN ('latency_ms', 'upstream_ms', 'ttft_ms', 'score') THEN 'double precision'
            WHEN one ->> 'column' = 'cost_usd' THEN 'numeric'
            WHEN one ->> 'column' IN ('asset', 'digest', 'arm', 'unit', 'prediction', 'error_code', 'trace_id', 'requester',
                'protocol', 'client_request_id') THEN 'text'
            WHEN one ->> 'column' IN ('tags', 'features', 'input', 'output', 'shap') THEN 'jsonb'
        END;
        IF kind IS NULL THEN
            RAISE EXCEPTION 'no column %', quote_literal(left(one ->> 'column', 60)) USING ERRCODE = 'undefined_column';
        END IF;
        subject := format('%I', one ->> 'column');
        IF kind = 'jsonb' THEN
            path := ARRAY(SELECT jsonb_array_elements_text(one -> 'path'));
            IF one ->> 'kind' = 'number' THEN
                subject := format('CASE jsonb_typeof(%1$s #> %2$L) WHEN ''number'' THEN (%1$s #>> %2$L)::numeric END', subject, path);
                kind := 'numeric';
            ELSE
                subject := format('(%s #>> %L)', subject, path);
                kind := 'text';
            END IF;
        END IF;
        value := format('%L::%s', one ->> 'value', kind);
        parts := parts || CASE one ->> 'op'
            WHEN '=' THEN format('%s = %s', subject, value)
            WHEN '!=' THEN format('%s IS DISTINCT FROM %s', subject, value)
            WHEN '<' THEN format('%s < %s', subject, value)
            WHEN '<=' THEN format('%s <= %s', subject, value)
            WHEN '>' THEN format('%s > %s', subject, value)
            WHEN '>=' THEN format('%s >= %s', subject, value)
            WHEN '~' THEN format('strpos(lower(%s::text), lower(%L)) > 0', subject, one ->> 'value')
            WHEN '^' THEN format('starts_with(%s::text, %L)', subject, one ->> 'value')
            WHEN 'is null' THEN format('%s IS NULL', subject)
            WHEN 'is not null' THEN format('%s IS NOT NULL', subject)
        END;
        IF one ->> 'op' IS NULL OR parts[array_length(parts, 1)] IS NULL THEN
            RAISE EXCEPTION 'no operator %', quote_literal(left(one ->> 'op', 20)) USING ERRCODE = 'syntax_error';
        END IF;
    END LOOP;
    RETURN array_to_string(parts, ' AND ');
END $$;

-- The day of a partition by its name; NULL of any other table: the planner may well ask for the day of every name in
-- pg_class before it looks which of them are partitions of the group.
CREATE FUNCTION day_of_partition(partition name) RETURNS date LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN partition ~ '^p[0-9]{8}_' THEN to_date(substr(partition, 2, 8), 'YYYYMMDD') END;
$$;

-- The days of a group that have rows at all within bounds, newest first.
CREATE FUNCTION inference_days(p_group text, p_since timestamptz, p_until timestamptz) RETURNS SETOF date
LANGUAGE sql STABLE AS $$
    SELECT day FROM (
        SELECT day_of_partition(c.relname) AS day
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = to_regclass(format('%I', 'inference_log_' || replace(p_group, '-', '_')))
    ) d WHERE (day + 1)::timestamp AT TIME ZONE 'UTC' > p_since AND day::timestamp AT TIME ZONE 'UTC' <= p_until
    ORDER BY day DESC;
$$;

DROP FUNCTION inference_page(text, timestamptz, timestamptz, text, integer, integer, text, timestamptz, uuid, integer);

-- A page of a group's rows, newest first, without what is large: at most p_most rows before (p_before, p_before_id), and
-- never much more than p_budget_ms. Each day is a partition, asked by itself, so that one plan has one partition. Where
-- a filter stands on an index the whole day is asked at once; else the day is walked through in slices, whose ends are
-- found on the time index, and the budget is looked at between two. When it is used up a last row says how far the
-- search went: its request_id is null, and (reached_at, reached_id) is where the next page begins.
CREATE FUNCTION inference_search(
    p_group text, p_since timestamptz, p_until timestamptz, p_before timestamptz, p_before_id uuid, p_filters jsonb,
    p_most integer, p_budget_ms double precision
) RETURNS TABLE (
    request_id uuid, received_at timestamptz, unit text, asset text, version integer, digest text, arm text, status smallint,
    error_code text, score double precision, prediction text, latency_ms double precision,
    upstream_ms double precision, requester text, client_request_id text, protocol text, shadow_of uuid, trace_id text,
    revision bigint, tags jsonb, truth text, reached_at timestamptz, reached_id uuid
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    log_table text := 'inference_log_' || replace(p_group, '-', '_');
    condition text := inference_condition(p_filters);
    is_anchored boolean := p_filters = '[]' OR EXISTS (
        SELECT FROM jsonb_array_elements(p_filters) AS f
        WHERE f ->> 'op' = '=' AND f ->> 'column' IN ('request_id', 'unit', 'client_request_id', 'shadow_of')
            OR f ->> 'op' IN ('=', '>=', '>') AND f ->> 'column' = 'status' AND (f ->> 'value')::numeric >= 400
            OR f ->> 'op' IN ('=', 'is not null') AND f ->> 'column' = 'error_code');
    began timestamptz := clock_timestamp();
    slice_began timestamptz;
    slice integer := 4000;
    spent double precision;
    day date;
    day_from timestamptz;
    upper_at timestamptz := least(p_before, p_until);
    upper_id uuid := CASE WHEN p_before < p_until THEN p_before_id ELSE '00000000-0000-0000-0000-000000000000' END;
    lower_at timestamptz;
    lower_id uuid;
    found_here integer;
    left_over integer := p_most;
BEGIN
    FOR day IN SELECT * FROM inference_days(p_group, p_since, upper_at) LOOP
        day_from := greatest(p_since, day::timestamp AT TIME ZONE 'UTC');
        IF upper_at > (day + 1)::timestamp AT TIME ZONE 'UTC' THEN
            upper_at := (day + 1)::timestamp AT TIME ZONE 'UTC';
            upper_id := '00000000-0000-0000-0000-000000000000';
        END IF;
        -- A page that ended with a day ended there: no row of that day is left.
        CONTINUE WHEN upper_at = day_from AND upper_id = '00000000-0000-0000-0000-000000000000';
        LOOP
            lower_at := NULL;
            slice_began := clock_timestamp();
            IF NOT is_anchored THEN
                EXECUTE format('SELECT received_at, request_id FROM %I
                    WHERE received_at >= $1 AND received_at <= $2 AND (received_at, request_id) < ($2, $3)
                    ORDER BY received_at DESC, request_id DESC OFFSET $4 LIMIT 1', log_table)
                INTO lower_at, lower_id USING day_from, upper_at, upper_id, slice;
            END IF;
            RETURN QUERY EXECUTE format($query$
                SELECT request_id, received_at, unit, asset, version, digest, arm, status, error_code, score, prediction,
                       latency_ms, upstream_ms, requester, client_request_id, protocol, shadow_of, trace_id, revision, tags,
                       NULL::text, NULL::timestamptz, NULL::uuid
                FROM %I
                WHERE received_at >= $1 AND received_at <= $2 AND (received_at, request_id) < ($2, $3)
                    AND (received_at, request_id) >= ($1, $4) AND %s
                ORDER BY received_at DESC, request_id DESC LIMIT $5
            $query$, log_table, condition)
            USING coalesce(lower_at, day_from), upper_at, upper_id,
                coalesce(lower_id, '00000000-0000-0000-0000-000000000000'), left_over;
            GET DIAGNOSTICS found_here = ROW_COUNT;
            left_over := left_over - found_here;
            IF left_over <= 0 THEN
                RETURN;
            END IF;
            spent := extract(epoch FROM clock_timestamp() - began) * 1000;
            IF spent > p_budget_ms THEN
                reached_at := coalesce(lower_at, day_from);
                reached_id := CASE WHEN lower_at IS NULL THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE lower_id END;
                RETURN NEXT;
                RETURN;
            END IF;
            EXIT WHEN lower_at IS NULL;
            upper_at := lower_at;
            upper_id := lower_id;
            -- As much as the rest of the budget allows, by how long the last slice took; at most twice as much.
            slice := greatest(500, least(slice * 2, (slice * (p_budget_ms - spent)
                / greatest(0.1, extract(epoch FROM clock_timestamp() - slice_began) * 1000))::integer));
            lower_id := NULL;
        END LOOP;
    END LOOP;
END $$;

-- What is known to be true of these requests by a moment: the latest label that had been received then.
CREATE FUNCTION labels_known(p_group text, p_request_ids uuid[], p_as_of timestamptz)
RETURNS TABLE (request_id uuid, label text) LANGUAGE sql STABLE AS $$
    SELECT one.id, f.label FROM unnest(p_request_ids) AS one (id)
    CROSS JOIN LATERAL (
        SELECT f.label FROM feedback f
        WHERE f.group_name = p_group AND f.metric = 'label' AND f.request_id = one.id AND f.received_at <= p_as_of
        ORDER BY f.received_at DESC, f.id DESC LIMIT 1
    ) f;
$$;

-- The view of a group's rows with one typed column a feature of its champion. `security_invoker`: whoever reads the view
-- reads the table as themselves, so that the table's row-level security holds for them. A value that is not of its
-- feature's type (hashed by a field rule, of another version) is null in the typed column and stands in `features`.
-- A feature that is called like a column of the table, or too long for a column, is called feature_<its place>.
-- What it was made of is its comment, so that nothing is renewed in vain.
CREATE FUNCTION inference_view_of(p_group text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT CASE jsonb_typeof(s.signature -> 'inputs') WHEN 'array' THEN s.signature -> 'inputs' END
        FROM model_group g
        JOIN group_revision r ON r.group_name = g.name AND r.revision = g.revision
        JOIN served_version s ON (s.workspace, s.urn, s.version) = (g.workspace, r.champion_urn, r.champion_version)
            AND s.digest = r.champion_digest
        WHERE g.name = p_group), '[]');
$$;

CREATE FUNCTION renew_inference_view(p_group text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    folded text := replace(p_group, '-', '_');
    inputs jsonb := inference_view_of(p_group);
    one record;
    kept text[] := ARRAY(
        SELECT attname FROM pg_attribute
        WHERE attrelid = format('%I', 'inference_log_' || folded)::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum);
    columns text[] := ARRAY(SELECT format('%I', name) FROM unnest(kept) AS name);
    called text;
BEGIN
    FOR one IN SELECT value ->> 'name' AS name, upper(coalesce(value ->> 'datatype', '')) AS datatype, place
               FROM jsonb_array_elements(inputs) WITH ORDINALITY AS i (value, place) WHERE value ? 'name' ORDER BY place LOOP
        called := one.name;
        IF called = '' OR octet_length(called) > 63 OR called = ANY (kept) THEN
            called := 'feature_' || one.place;
        END IF;
        CONTINUE WHEN called = ANY (kept);
        kept := kept || called;
        columns := columns || format(CASE
            WHEN one.datatype = 'BOOL' THEN
                'CASE jsonb_typeof(features -> %1$L) WHEN ''boolean'' THEN (features ->> %1$L)::boolean END AS %2$I'
            WHEN one.datatype ~ '^U?INT' THEN
                'CASE WHEN features ->> %1$L ~ ''^-?[0-9]{1,18}$'' AND jsonb_typeof(features -> %1$L) = ''number'' '
                'THEN (features ->> %1$L)::bigint END AS %2$I'
            WHEN one.datatype IN ('BYTES', 'STRING', 'TEXT') THEN 'features ->> %1$L AS %2$I'
            ELSE 'CASE jsonb_typeof(features -> %1$L) WHEN ''number'' THEN (features ->> %1$L)::double precision END AS %2$I'
        END, one.name, called);
    END LOOP;
    EXECUTE format('DROP VIEW IF EXISTS %I', 'inference_view_' || folded);
    EXECUTE format('CREATE VIEW %I WITH (security_invoker = true) AS SELECT %s FROM %I',
        'inference_view_' || folded, array_to_string(columns, ', '), 'inference_log_' || folded);
    EXECUTE format('COMMENT ON VIEW %I IS %L', 'inference_view_' || folded, md5(inputs::text));
END $$;

-- Groups whose view is not of their champion.
CREATE FUNCTION inference_views_due() RETURNS TABLE (workspace text, group_name text) LANGUAGE sql STABLE AS $$
    SELECT g.workspace, g.name FROM model_group g
    WHERE to_regclass(format('%I', g.log_table)) IS NOT NULL
        AND obj_description(to_regclass(format('%I', 'inference_view_' || replace(g.name, '-', '_'))), 'pg_class')
            IS DISTINCT FROM md5(inference_view_of(g.name)::text);
$$;

DO $$
DECLARE
    one record;
BEGIN
    PERFORM set_config('mintmark.workspace', '*', true);
    FOR one IN SELECT name FROM model_group LOOP
        PERFORM index_inference_log(one.name);
        PERFORM renew_inference_view(one.name);
    END LOOP;
END $$;
