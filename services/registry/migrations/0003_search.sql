-- Search over bitmaps: a table of terms under a btree finds a rare term at once, but two common ones, OR, NOT, ranges
-- and counts walk it. Here each term has one bitmap of versions a block; what was registered or changed since is a small
-- log that a worker folds into them, beside the traffic.
--
-- Row-level security lets no GIN index be used (its operators are not leakproof); these tables are read by equality alone.

-- What versions are found by since the last fold: terms that came and went, numbers by field (NULL where there is none
-- any more), and what the version is about in words. Only inserted into; the fold takes rows away.
CREATE TABLE search_change (
    id        bigint GENERATED ALWAYS AS IDENTITY,
    workspace text NOT NULL,
    number    bigint NOT NULL,
    gone      text[] NOT NULL DEFAULT '{}',
    come      text[] NOT NULL,
    fields    text[] NOT NULL DEFAULT '{}',
    numbers   float8[] NOT NULL DEFAULT '{}',
    gist      text,
    PRIMARY KEY (workspace, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
SELECT mintmark_protect('search_change');

-- How far a workspace is folded. Every fold is a generation; `labels` and `meanings` are the last ids given.
CREATE TABLE search_state (
    workspace  text PRIMARY KEY,
    generation bigint NOT NULL DEFAULT 0,
    labels     bigint NOT NULL DEFAULT 0,
    meanings   bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
SELECT mintmark_protect('search_state');

-- The versions that a term finds among 65,536 numbers, as a roaring bitmap. A row that nothing is left of stays, empty,
-- so that whoever keeps the bitmap in memory sees that it changed.
CREATE TABLE posting (
    workspace  text NOT NULL,
    term       text COLLATE "C" NOT NULL,
    block      integer NOT NULL,
    generation bigint NOT NULL,
    bitmap     bytea STORAGE EXTERNAL NOT NULL,
    PRIMARY KEY (workspace, term, block)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
SELECT mintmark_protect('posting');

-- Every term that finds something, with how much, for patterns, facets and how telling a word is.
CREATE TABLE vocabulary (
    workspace text NOT NULL,
    term      text COLLATE "C" NOT NULL,
    versions  bigint NOT NULL,
    PRIMARY KEY (workspace, term)
) WITH (fillfactor = 70);
SELECT mintmark_protect('vocabulary');

-- The numbers of a field among 65,536 versions: their places in the block (uint16, ascending), then as many float64.
CREATE TABLE measured (
    workspace  text NOT NULL,
    field      text COLLATE "C" NOT NULL,
    block      integer NOT NULL,
    generation bigint NOT NULL,
    body       bytea STORAGE EXTERNAL NOT NULL,
    PRIMARY KEY (workspace, field, block)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
SELECT mintmark_protect('measured');

-- What assets are called, by small numbers: names are matched by patterns here and sorted once, not once a version.
-- `folded` is without case, as every installation folds it alike, whatever its collation.
CREATE TABLE label (
    workspace text NOT NULL,
    id        bigint NOT NULL,
    label     text COLLATE "C" NOT NULL,
    folded    text COLLATE "C" NOT NULL,
    PRIMARY KEY (workspace, id)
);
CREATE UNIQUE INDEX label_once ON label (workspace, label);
SELECT mintmark_protect('label');

-- What versions are about, each text once; `id` in the order of commits, so that a worker can tell what is new.
CREATE TABLE meaning (
    workspace text NOT NULL,
    id        bigint NOT NULL,
    digest    text NOT NULL,
    gist      text NOT NULL,
    PRIMARY KEY (workspace, id)
);
CREATE UNIQUE INDEX meaning_once ON meaning (workspace, digest);
SELECT mintmark_protect('meaning');

-- How far each model has embedded a workspace's meanings; search asks the newest model that caught up once.
CREATE TABLE embedder (
    workspace  text NOT NULL,
    model      text NOT NULL,
    dimensions integer NOT NULL,
    reached    bigint NOT NULL DEFAULT 0,
    indexed    bigint NOT NULL DEFAULT 0,
    since      timestamptz NOT NULL,
    ready_at   timestamptz,
    PRIMARY KEY (workspace, model)
);
SELECT mintmark_protect('embedder');

-- A meaning as a unit vector of one model, float16.
CREATE TABLE embedding (
    workspace text NOT NULL,
    model     text NOT NULL,
    id        bigint NOT NULL,
    vector    bytea NOT NULL,
    PRIMARY KEY (workspace, model, id)
);
SELECT mintmark_protect('embedding');

-- With pgvector, the same vectors under an index; without it this table is not made, and vectors are compared one by one.
-- Called by the worker at its start, too: the extension may come later. Returns whether the table is there.
CREATE FUNCTION make_near() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('near') IS NOT NULL THEN
        RETURN true;
    ELSIF to_regtype('halfvec') IS NULL THEN
        RETURN false;
    END IF;
    CREATE TABLE near (
        workspace text NOT NULL,
        model     text NOT NULL,
        id        bigint NOT NULL,
        vector    halfvec NOT NULL,
        PRIMARY KEY (workspace, model, id)
    );
    PERFORM mintmark_protect('near');
    RETURN true;
END $$;
SELECT make_near();

-- The index of one model's vectors, which have so many dimensions.
CREATE FUNCTION index_near(p_model text, p_dimensions integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'CREATE INDEX IF NOT EXISTS %I ON near USING hnsw ((vector::halfvec(%s)) halfvec_ip_ops) WHERE model = %L',
        'near_' || substr(md5(p_model || p_dimensions), 1, 12), p_dimensions, p_model);
END $$;

-- The nearest of a workspace's meanings, by the index: with which effort, and how many. The dimensions of an index are part
-- of its expression, so that the statement is made for each model.
CREATE FUNCTION nearest(
    p_workspace text, p_model text, p_dimensions integer, p_vector text, p_most integer
) RETURNS TABLE (id bigint, similarity float8) LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(100, p_most))::text, true);
    PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true);
    RETURN QUERY EXECUTE format(
        'SELECT id, -(vector::halfvec(%s) <#> %L::halfvec(%s)) FROM near WHERE model = %L AND workspace = %L '
        'ORDER BY vector::halfvec(%s) <#> %L::halfvec(%s) LIMIT %s',
        p_dimensions, p_vector, p_dimensions, p_model, p_workspace, p_dimensions, p_vector, p_dimensions, p_most);
END $$;

-- The versions that are there, as the registry would register them now (services/registry/search/facts.py).
CREATE FUNCTION pg_temp.term(field text, value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT field || '=' || CASE WHEN length(value) <= 300 THEN value
        ELSE left(value, 200) || '…sha256:' || encode(sha256(convert_to(value, 'UTF8')), 'hex') END
$$;
CREATE FUNCTION pg_temp.keyed(prefix text, key text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT prefix || CASE WHEN length(to_json(key)::text) <= 300 THEN to_json(key)::text
        ELSE 'sha256:' || encode(sha256(convert_to(key, 'UTF8')), 'hex') END
$$;
SELECT set_config('mintmark.workspace', '*', true);
INSERT INTO search_change (workspace, number, come, fields, numbers, gist)
SELECT v.workspace, v.number,
       ARRAY(SELECT term FROM (
           SELECT unnest(ARRAY['all=', pg_temp.term('kind', a.kind), pg_temp.term('name', a.name),
               pg_temp.term('name', a.title), pg_temp.term('label', a.title), pg_temp.term('author', v.author),
               'stage=' || coalesce((
                   SELECT after FROM stage_move AS m WHERE m.workspace = v.workspace AND m.urn = v.urn
                   AND m.version = v.version ORDER BY revision DESC LIMIT 1), 'development')])
           UNION SELECT unnest(ARRAY[pg_temp.term(field, value), 'has=' || field]) FROM (VALUES
               ('task', v.content ->> 'task'), ('licence', v.content ->> 'licence'),
               ('run_id', v.content #>> '{training,run_id}'), ('dataset', v.content #>> '{training,dataset,urn}'),
               ('source_path', v.content #>> '{source,uri}'),
               ('risk', (SELECT document ->> 'risk' FROM finding AS f WHERE f.workspace = v.workspace AND f.urn = v.urn
                         AND f.version = 0 AND f.kind = 'classification' ORDER BY at DESC LIMIT 1))) AS one (field, value)
               WHERE value IS NOT NULL
           UNION SELECT unnest(ARRAY[pg_temp.term(pg_temp.keyed('tag:', key), value), 'has=' || pg_temp.keyed('tag:', key)])
               FROM jsonb_each_text(v.tags)
           UNION SELECT unnest(ARRAY[
                   pg_temp.term(pg_temp.keyed('param:', key), value #>> '{}'), 'has=' || pg_temp.keyed('param:', key)])
               FROM jsonb_each(v.content #> '{training,parameters}')
               WHERE jsonb_typeof(value) IN ('string', 'number', 'boolean')
           UNION SELECT 'yanked=true' WHERE v.yanked_at IS NOT NULL
           UNION SELECT pg_temp.term('alias', alias) FROM (
               SELECT DISTINCT ON (alias) alias, after FROM alias_move AS m
               WHERE m.workspace = v.workspace AND m.urn = v.urn ORDER BY alias, revision DESC) AS last
               WHERE last.after = v.version
           UNION SELECT 'word=' || lexeme FROM unnest(tsvector_to_array(to_tsvector('english', left(concat_ws(E'\n',
               a.title, a.name, regexp_replace(a.name, '[._-]+', ' ', 'g'), v.description, v.content ->> 'task',
               v.content ->> 'licence',
               (SELECT string_agg(key || ' ' || value, E'\n') FROM jsonb_each_text(v.tags))), 50000)))) AS lexeme
               WHERE length(lexeme) <= 500) AS found (term)),
       ARRAY['created', 'updated', 'version']
           || ARRAY(SELECT pg_temp.keyed('metric:', key) FROM jsonb_each(v.metrics) ORDER BY key),
       ARRAY[1000 * extract(epoch FROM v.registered_at), 1000 * extract(epoch FROM v.registered_at), v.version]::float8[]
           || ARRAY(SELECT value::float8 FROM jsonb_each_text(v.metrics) ORDER BY key),
       concat_ws('. ', regexp_replace(a.title, '[._/-]+', ' ', 'g'), nullif(v.description, ''), v.content ->> 'task')
FROM version_now AS v
JOIN asset AS a ON a.workspace = v.workspace AND a.urn = v.urn
ORDER BY v.number;
DROP TABLE term;
SELECT set_config('mintmark.workspace', '', true);
