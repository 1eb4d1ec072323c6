-- What groups are told beside who serves them (group_settings/): a log, a row each time that a section was set.

-- `revision` is the group's at which the value came into force; what was in force at revision R is the last row at or
-- before R. A section without a row has its defaults.
CREATE TABLE group_setting (
    workspace  text NOT NULL,
    group_name text NOT NULL REFERENCES model_group (name),
    section    text NOT NULL,
    revision   bigint NOT NULL,
    value      jsonb NOT NULL,
    who        text NOT NULL,
    why        text NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (group_name, section, revision)
);
SELECT mintmark_protect('group_setting');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON group_setting
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE group_revision DROP CONSTRAINT group_revision_change_check;
ALTER TABLE group_revision ADD CONSTRAINT group_revision_change_check
    CHECK (change IN ('created', 'weighted', 'promoted', 'rolled_back', 'mirrored', 'configured'));

-- What is in force of a group's settings: {section: value}.
CREATE FUNCTION group_settings(p_group text, p_revision bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_object_agg(section, value), '{}') FROM (
        SELECT DISTINCT ON (section) section, value FROM group_setting
        WHERE group_name = p_group AND revision <= p_revision ORDER BY section, revision DESC) latest;
$$;

-- What stood in columns that nobody could set over the API.
DO $$
BEGIN
    PERFORM set_config('mintmark.workspace', '*', true);
    INSERT INTO group_setting (workspace, group_name, section, revision, value, who, why, at)
    SELECT workspace, name, 'rows', 1,
           jsonb_strip_nulls(jsonb_build_object('when_spool_full', when_spool_full, 'retention_days', retention_days)),
           'service:router', 'as it was before settings had a log', now()
    FROM model_group WHERE when_spool_full <> 'refuse' OR retention_days IS NOT NULL;
END $$;

CREATE OR REPLACE FUNCTION inference_log_days_due()
RETURNS TABLE (workspace text, group_name text, partition text, day date) LANGUAGE sql STABLE AS $$
    SELECT g.workspace, g.name, c.relname::text, to_date(substr(c.relname, 2, 8), 'YYYYMMDD')
    FROM model_group g
    JOIN pg_inherits i ON i.inhparent = to_regclass(format('%I', g.log_table))
    JOIN pg_class c ON c.oid = i.inhrelid
    WHERE to_date(substr(c.relname, 2, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date
        - (group_settings(g.name, g.revision) #>> '{rows,retention_days}')::integer;
$$;

ALTER TABLE model_group DROP COLUMN when_spool_full, DROP COLUMN retention_days;
