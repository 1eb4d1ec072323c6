-- How rows are minimised, archived, erased, and how they go with their group.

-- A group that is to be deleted is retired first: it serves nothing, and its rows can still be read. A deleted one keeps
-- its history and its name, which archives, receipts and other services' events go on to speak of.
ALTER TABLE model_group ADD COLUMN retired_at timestamptz, ADD COLUMN deleted_at timestamptz;

-- The salt of a group's hashes and the data key of its ciphertexts (gateway/minimisation/keys.py); no API shows either.
CREATE TABLE group_key (
    workspace  text NOT NULL,
    group_name text NOT NULL REFERENCES model_group (name),
    kind       text NOT NULL CHECK (kind IN ('salt', 'data')),
    value      text NOT NULL,
    sealed     boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, kind)
);
SELECT mintmark_protect('group_key');

-- Rows that stand as Parquet in the artefact store and no longer in a table. `replaced_by` is the archive that has all
-- of these rows but those that were erased since; the bytes of the replaced one are gone.
CREATE TABLE log_archive (
    id          uuid PRIMARY KEY,
    workspace   text NOT NULL,
    group_name  text NOT NULL REFERENCES model_group (name),
    day         date NOT NULL,
    digest      text NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    bytes       bigint NOT NULL,
    row_count   bigint NOT NULL,
    cause       text NOT NULL CHECK (cause IN ('retention', 'deletion', 'erasure')),
    made_at     timestamptz NOT NULL,
    replaced_by uuid REFERENCES log_archive (id),
    removed_at  timestamptz
);
CREATE INDEX log_archive_of_group ON log_archive (group_name, day, id);
SELECT mintmark_protect('log_archive');

-- Who asked that a subject's rows be erased, and the signed receipt. Of the subject only salted hashes: rows that were in
-- a spool at that time are recognised by them when they come. `filters` is how rows were named in place of a subject;
-- they are forgotten after a week, since they may say who it was. `groups` is null for all of the workspace's.
CREATE TABLE erasure (
    id        uuid PRIMARY KEY,
    workspace text NOT NULL,
    groups    text[],
    salt      bytea NOT NULL,
    subjects  bytea[] NOT NULL,
    filters   jsonb,
    reason    text NOT NULL,
    who       text NOT NULL,
    at        timestamptz NOT NULL,
    receipt   jsonb NOT NULL,
    late_rows bigint NOT NULL DEFAULT 0
);
CREATE INDEX erasure_of_workspace ON erasure (workspace, at);
SELECT mintmark_protect('erasure');

-- A group's deletion: asked by one person; where the rows are not archived, agreed to by another.
CREATE TABLE group_deletion (
    id         uuid PRIMARY KEY,
    workspace  text NOT NULL,
    group_name text NOT NULL REFERENCES model_group (name),
    policy     text NOT NULL CHECK (policy IN ('archive', 'drop')),
    reason     text NOT NULL,
    asked_by   text NOT NULL,
    asked_at   timestamptz NOT NULL,
    agreed_by  text,
    agreed_at  timestamptz,
    kept_by    text,
    kept_at    timestamptz,
    done_at    timestamptz,
    row_count  bigint,
    CHECK (agreed_by IS DISTINCT FROM asked_by)
);
CREATE UNIQUE INDEX group_deletion_open ON group_deletion (group_name) WHERE done_at IS NULL AND kept_at IS NULL;
CREATE INDEX group_deletion_of_group ON group_deletion (group_name, asked_at);
SELECT mintmark_protect('group_deletion');

-- Days that are older than their group keeps its rows, and what is to become of them.
DROP FUNCTION inference_log_days_due();
CREATE FUNCTION inference_log_days_due()
RETURNS TABLE (workspace text, group_name text, partition text, day date, policy text) LANGUAGE sql STABLE AS $$
    SELECT g.workspace, g.name, c.relname::text, day_of_partition(c.relname),
           coalesce(group_settings(g.name, g.revision) #>> '{rows,at_deletion}', 'archive')
    FROM model_group g
    JOIN pg_inherits i ON i.inhparent = to_regclass(format('%I', g.log_table))
    JOIN pg_class c ON c.oid = i.inhrelid
    WHERE day_of_partition(c.relname) < (now() AT TIME ZONE 'UTC')::date
        - (group_settings(g.name, g.revision) #>> '{rows,retention_days}')::integer
    ORDER BY g.name, c.relname;
$$;

-- The statement that gives a group's rows within bounds, oldest first, for COPY; times in microseconds since 1970.
CREATE FUNCTION inference_export(p_group text, p_since timestamptz, p_until timestamptz, p_filters jsonb) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    log_table text := 'inference_log_' || replace(p_group, '-', '_');
    columns text := (
        SELECT string_agg(CASE atttypid WHEN 'timestamptz'::regtype
            THEN format('(extract(epoch FROM %1$I) * 1000000)::bigint AS %1$I', attname) ELSE format('%I', attname) END, ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = format('%I', log_table)::regclass AND attnum > 0 AND NOT attisdropped);
BEGIN
    RETURN format('SELECT %s FROM %I WHERE received_at >= %L::timestamptz AND received_at < %L::timestamptz AND %s '
        'ORDER BY received_at, request_id', columns, log_table, p_since, p_until, inference_condition(p_filters));
END $$;

-- While a group's rows go to an archive nothing is erased from it, so that no archive keeps what was erased meanwhile.
CREATE FUNCTION lock_archive(p_group text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtext('inference_archive'), hashtext(p_group));
$$;

-- Drop a day of rows of which so many are archived; false, and nothing done, when there are others since.
CREATE FUNCTION drop_archived_day(p_group text, p_partition text, p_rows bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    there bigint;
BEGIN
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', 'inference_log_' || replace(p_group, '-', '_'), p_partition);
    EXECUTE format('GRANT SELECT ON %I TO %I', p_partition, current_user);
    EXECUTE format('SELECT count(*) FROM %I', p_partition) INTO there;
    IF there <> p_rows THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', p_partition);
    RETURN true;
END $$;

-- The days that a group still has in its table, oldest first.
CREATE FUNCTION inference_log_days(p_group text) RETURNS TABLE (partition text, day date) LANGUAGE sql STABLE AS $$
    SELECT c.relname::text, day_of_partition(c.relname)
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass(format('%I', 'inference_log_' || replace(p_group, '-', '_')))
    ORDER BY c.relname;
$$;

-- The end of a group: its table, its view, what was said about its requests. Returns how many rows the table had left.
CREATE FUNCTION drop_inference_log(p_group text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    folded text := replace(p_group, '-', '_');
    there bigint := 0;
BEGIN
    IF to_regclass(format('%I', 'inference_log_' || folded)) IS NOT NULL THEN
        EXECUTE format('SELECT count(*) FROM %I', 'inference_log_' || folded) INTO there;
        EXECUTE format('DROP VIEW IF EXISTS %I', 'inference_view_' || folded);
        EXECUTE format('DROP TABLE %I', 'inference_log_' || folded);
    END IF;
    DELETE FROM feedback WHERE group_name = p_group;
    DELETE FROM group_key WHERE group_name = p_group;
    RETURN there;
END $$;

-- Remove the rows of a group whose unit is one of these, or that all of the filters let through, and every word about
-- them. `digest` is the SHA-256 over the rows' own hashes in the order of their ids. Waits for archives and for shippers
-- that are in the middle of a batch: those that come after it see the erasure.
CREATE FUNCTION erase_rows(p_group text, p_units text[], p_filters jsonb)
RETURNS TABLE (row_count bigint, word_count bigint, digest text) LANGUAGE plpgsql AS $$
DECLARE
    ids uuid[];
BEGIN
    PERFORM lock_archive(p_group);
    PERFORM pg_advisory_xact_lock(hashtext('inference_erasure'), hashtext(p_group));
    EXECUTE format($query$
        WITH gone AS (
            DELETE FROM %I l WHERE ($1 IS NULL OR unit = ANY ($1)) AND %s
            RETURNING l.request_id, sha256(convert_to(l::text, 'UTF8')) AS content
        )
        SELECT coalesce(array_agg(request_id ORDER BY request_id), '{}'),
               'sha256:' || encode(sha256(coalesce(string_agg(content, ''::bytea ORDER BY request_id), ''::bytea)), 'hex')
        FROM gone
    $query$, 'inference_log_' || replace(p_group, '-', '_'), inference_condition(p_filters)) INTO ids, digest USING p_units;
    row_count := cardinality(ids);
    DELETE FROM feedback f WHERE f.group_name = p_group AND f.request_id = ANY (ids);
    GET DIAGNOSTICS word_count = ROW_COUNT;
    RETURN NEXT;
END $$;

-- Until when the requests of these groups may be erased already, for a shipper that is about to put rows in; none of a
-- group that nothing was erased from. No erasure of these groups begins before the transaction ends.
CREATE FUNCTION erased_until(p_groups text[]) RETURNS TABLE (group_name text, until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    one text;
BEGIN
    FOR one IN SELECT DISTINCT g FROM unnest(p_groups) AS g ORDER BY g LOOP
        PERFORM pg_advisory_xact_lock_shared(hashtext('inference_erasure'), hashtext(one));
    END LOOP;
    RETURN QUERY SELECT g.name, max(e.at) FROM model_group g
        JOIN erasure e ON e.workspace = g.workspace AND (e.groups IS NULL OR g.name = ANY (e.groups))
        WHERE g.name = ANY (p_groups) GROUP BY g.name;
END $$;

-- Of rows that have just come, remove those that were to be erased while they were in a spool; returns their ids.
CREATE FUNCTION erase_late(p_group text, p_request_ids uuid[]) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    one erasure;
    ids uuid[];
    gone uuid[] := '{}';
BEGIN
    FOR one IN SELECT e.* FROM erasure e JOIN model_group g ON g.workspace = e.workspace
               WHERE g.name = p_group AND (e.groups IS NULL OR p_group = ANY (e.groups)) LOOP
        CONTINUE WHEN cardinality(one.subjects) = 0 AND one.filters IS NULL;
        EXECUTE format($query$
            WITH gone AS (
                DELETE FROM %I WHERE request_id = ANY ($1) AND received_at <= $2
                    AND (cardinality($4) = 0 OR sha256($3 || convert_to(unit, 'UTF8')) = ANY ($4)) AND %s
                RETURNING request_id
            )
            SELECT coalesce(array_agg(request_id), '{}') FROM gone
        $query$, 'inference_log_' || replace(p_group, '-', '_'), inference_condition(one.filters))
        INTO ids USING p_request_ids, one.at, one.salt, one.subjects;
        IF cardinality(ids) > 0 THEN
            UPDATE erasure SET late_rows = late_rows + cardinality(ids) WHERE id = one.id;
            DELETE FROM feedback f WHERE f.group_name = p_group AND f.request_id = ANY (ids);
            gone := gone || ids;
        END IF;
    END LOOP;
    RETURN gone;
END $$;
