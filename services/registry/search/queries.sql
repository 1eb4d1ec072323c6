-- What finds versions: the log of changes, and the bitmaps, numbers and vectors that a worker folds it into.

-- name: insert_change(workspace, number, gone, come, before, after, fields, numbers, gist, urn)$
-- Terms, and the words of a text, that find a version from now on or no longer (migration 0012). With a `urn` the version
-- is new.
SELECT log_search_change(:workspace, :number, :gone, :come, :before, :after, :fields, :numbers, :gist, :urn);

-- name: insert_change_of_asset(workspace, urn, gone, come)!
-- The same terms for every version of an asset.
INSERT INTO search_change (workspace, number, gone, come)
SELECT :workspace, number, :gone::text[], :come::text[] FROM version WHERE workspace = :workspace AND urn = :urn;

-- name: insert_change_of_version(workspace, urn, version, gone, come, fields, numbers)!
-- Terms and numbers of one version of an asset, if it is there.
INSERT INTO search_change (workspace, number, gone, come, fields, numbers)
SELECT :workspace, number, :gone::text[], :come::text[], :fields::text[], :numbers::float8[]
FROM version WHERE workspace = :workspace AND urn = :urn AND version = :version;

-- name: hold_asset(workspace, urn)$
-- Nobody registers a version of this asset until commit.
SELECT true FROM asset WHERE workspace = :workspace AND urn = :urn FOR UPDATE;

-- name: workspaces_with_changes()
-- Which workspaces have something to be folded, by steps along the key; runs over all of them.
WITH RECURSIVE found AS (
    (SELECT workspace FROM search_change ORDER BY workspace LIMIT 1)
    UNION ALL
    SELECT (SELECT c.workspace FROM search_change AS c WHERE c.workspace > found.workspace ORDER BY c.workspace LIMIT 1)
    FROM found WHERE found.workspace IS NOT NULL)
SELECT workspace FROM found WHERE workspace IS NOT NULL;

-- name: lock_fold(workspace)$
-- One folder a workspace at a time, until the transaction ends; false when another one is at it.
SELECT pg_try_advisory_xact_lock(hashtextextended('search/' || :workspace, 0));

-- name: take_changes(workspace, most)
-- Take the oldest changes away.
WITH taken AS (
    DELETE FROM search_change WHERE workspace = :workspace AND id IN (
        SELECT id FROM search_change WHERE workspace = :workspace ORDER BY id LIMIT :most)
    RETURNING id, number, gone, come, fields, numbers, gist)
SELECT * FROM taken ORDER BY id;

-- name: next_generation(workspace)^
-- The state of a workspace that is about to be folded, made if need be and held until commit.
INSERT INTO search_state (workspace, generation) VALUES (:workspace, 1)
ON CONFLICT (workspace) DO UPDATE SET generation = search_state.generation + 1
RETURNING generation, labels, meanings;

-- name: put_ids(workspace, labels, meanings)!
-- The last ids that were given.
UPDATE search_state SET labels = :labels, meanings = :meanings WHERE workspace = :workspace;

-- name: postings_at(workspace, terms, blocks)
-- The bitmaps of some terms in some blocks.
SELECT p.term, p.block, p.bitmap
FROM unnest(:terms::text[], :blocks::integer[]) AS asked (term, block)
JOIN posting AS p ON p.workspace = :workspace AND p.term = asked.term AND p.block = asked.block;

-- name: put_postings(workspace, generation, terms, blocks, bitmaps)!
-- Bitmaps as they are from this generation on.
INSERT INTO posting (workspace, term, block, generation, bitmap)
SELECT :workspace, term, block, :generation, bitmap
FROM unnest(:terms::text[], :blocks::integer[], :bitmaps::bytea[]) AS made (term, block, bitmap)
ON CONFLICT (workspace, term, block) DO UPDATE SET generation = excluded.generation, bitmap = excluded.bitmap;

-- name: count_terms(workspace, terms, more)!
-- How many more (or fewer) versions each term finds.
INSERT INTO vocabulary AS known (workspace, term, versions)
SELECT :workspace, term, more FROM unnest(:terms::text[], :more::bigint[]) AS counted (term, more)
ON CONFLICT (workspace, term) DO UPDATE SET versions = known.versions + excluded.versions;

-- name: forget_terms(workspace, terms)!
-- Those of the terms that find nothing any more.
DELETE FROM vocabulary WHERE workspace = :workspace AND term = ANY(:terms::text[]) AND versions <= 0;

-- name: measured_at(workspace, fields, blocks)
-- The numbers of some fields in some blocks.
SELECT m.field, m.block, m.body
FROM unnest(:fields::text[], :blocks::integer[]) AS asked (field, block)
JOIN measured AS m ON m.workspace = :workspace AND m.field = asked.field AND m.block = asked.block;

-- name: put_measured(workspace, generation, fields, blocks, bodies)!
-- Numbers as they are from this generation on.
INSERT INTO measured (workspace, field, block, generation, body)
SELECT :workspace, field, block, :generation, body
FROM unnest(:fields::text[], :blocks::integer[], :bodies::bytea[]) AS made (field, block, body)
ON CONFLICT (workspace, field, block) DO UPDATE SET generation = excluded.generation, body = excluded.body;

-- name: label_ids(workspace, labels)
-- The ids of labels that have one.
SELECT id, label FROM label WHERE workspace = :workspace AND label = ANY(:labels::text[]);

-- name: put_labels(workspace, ids, labels, folded)!
-- Labels that are new.
INSERT INTO label (workspace, id, label, folded)
SELECT :workspace, id, label, folded FROM unnest(:ids::bigint[], :labels::text[], :folded::text[]) AS made (id, label, folded);

-- name: meaning_ids(workspace, digests)
-- The ids of meanings that have one.
SELECT id, digest FROM meaning WHERE workspace = :workspace AND digest = ANY(:digests::text[]);

-- name: put_meanings(workspace, ids, digests, gists)!
-- Meanings that are new.
INSERT INTO meaning (workspace, id, digest, gist)
SELECT :workspace, id, digest, gist
FROM unnest(:ids::bigint[], :digests::text[], :gists::text[]) AS made (id, digest, gist);

-- name: state(workspace, most)^
-- How far the workspace is folded, and which changes are not; the state is absent where nothing ever was.
SELECT coalesce(s.generation, 0) AS generation, coalesce(s.labels, 0) AS labels, coalesce(s.meanings, 0) AS meanings,
       ARRAY(SELECT id FROM search_change WHERE workspace = :workspace ORDER BY id LIMIT :most) AS pending
FROM (SELECT) AS one LEFT JOIN search_state AS s ON s.workspace = :workspace;

-- name: changes(workspace, ids)
-- Changes that are not folded.
SELECT id, number, gone, come, fields, numbers, gist FROM search_change
WHERE workspace = :workspace AND id = ANY(:ids::bigint[]);

-- name: postings_since(workspace, terms, generations)
-- The bitmaps of terms that changed since the generation that each is known at.
SELECT p.term, p.block, p.bitmap
FROM unnest(:terms::text[], :generations::bigint[]) AS known (term, generation)
JOIN posting AS p ON p.workspace = :workspace AND p.term = known.term AND p.generation > known.generation;

-- name: measured_since(workspace, fields, generations)
-- The numbers of fields that changed since the generation that each is known at.
SELECT m.field, m.block, m.body
FROM unnest(:fields::text[], :generations::bigint[]) AS known (field, generation)
JOIN measured AS m ON m.workspace = :workspace AND m.field = known.field AND m.generation > known.generation;

-- name: labels_after(workspace, after)
-- Labels that came later than an id.
SELECT id, label FROM label WHERE workspace = :workspace AND id > :after ORDER BY id;

-- name: labels_like(workspace, after, pattern, any_case)
-- Labels that came later than an id and fit a pattern.
SELECT id FROM label WHERE workspace = :workspace AND id > :after
AND CASE WHEN :any_case THEN folded ELSE label END LIKE :pattern ORDER BY id;

-- name: terms_like(workspace, first, last, skipped, pattern, any_case, most, most_scanned)^
-- Terms within bounds whose value fits a pattern, at most so many; and how many it was tried on.
WITH tried AS MATERIALIZED (
    SELECT term FROM vocabulary WHERE workspace = :workspace AND term >= :first AND term < :last LIMIT :most_scanned)
SELECT (SELECT count(*) FROM tried) AS scanned, ARRAY(
    SELECT term FROM tried
    WHERE CASE WHEN :any_case THEN substr(term, :skipped + 1) ILIKE :pattern ELSE substr(term, :skipped + 1) LIKE :pattern END
    LIMIT :most) AS terms;

-- name: terms_between(workspace, first, last, most)
-- Terms of one field, the most common first, of the first so many by their spelling.
SELECT term, versions FROM (
    SELECT term, versions FROM vocabulary WHERE workspace = :workspace AND term >= :first AND term < :last
    ORDER BY term LIMIT :most) AS first_ones
ORDER BY versions DESC, term;

-- name: lexemes(text)$
-- The stems that full text makes of a text, without its stop words.
SELECT tsvector_to_array(to_tsvector('english', :text));

-- name: make_near()$
-- Whether vectors have an index: the table for it is made where the extension is there by now.
SELECT make_near();

-- name: has_near()$
-- Whether vectors have an index.
SELECT to_regclass('near') IS NOT NULL;

-- name: index_near(model, dimensions)!
-- The index of one model's vectors.
SELECT index_near(:model, :dimensions);

-- name: embedders(workspace)
-- The models that embedded this workspace's meanings, the newest first.
SELECT model, dimensions, reached, indexed, ready_at FROM embedder WHERE workspace = :workspace ORDER BY since DESC;

-- name: workspaces_to_embed(model, near)
-- Which workspaces have meanings that a model has not embedded, or that are not under the index; runs over all of them.
SELECT s.workspace FROM search_state AS s
LEFT JOIN embedder AS e ON e.workspace = s.workspace AND e.model = :model
WHERE s.meanings > coalesce(e.reached, 0) OR e.ready_at IS NULL AND s.meanings > 0
   OR (:near AND e.indexed < e.reached)
ORDER BY s.workspace;

-- name: lock_embedding(workspace)$
-- One at a time a workspace; false when another one is at it.
SELECT pg_try_advisory_xact_lock(hashtextextended('embedding/' || :workspace, 0));

-- name: hold_embedder(workspace, model, dimensions, at)^
-- How far a model is with a workspace, held until commit; made if need be.
INSERT INTO embedder (workspace, model, dimensions, since) VALUES (:workspace, :model, :dimensions, :at)
ON CONFLICT (workspace, model) DO UPDATE SET dimensions = excluded.dimensions RETURNING *;

-- name: meanings_after(workspace, after, most)
-- Meanings in the order that they came in.
SELECT id, gist FROM meaning WHERE workspace = :workspace AND id > :after ORDER BY id LIMIT :most;

-- name: put_embeddings(workspace, model, ids, vectors)!
-- Vectors of meanings.
INSERT INTO embedding (workspace, model, id, vector)
SELECT :workspace, :model, id, vector FROM unnest(:ids::bigint[], :vectors::bytea[]) AS made (id, vector)
ON CONFLICT (workspace, model, id) DO UPDATE SET vector = excluded.vector;

-- name: put_near(workspace, model, ids, vectors)!
-- The same under the index.
INSERT INTO near (workspace, model, id, vector)
SELECT :workspace, :model, id, vector::halfvec FROM unnest(:ids::bigint[], :vectors::text[]) AS made (id, vector)
ON CONFLICT (workspace, model, id) DO UPDATE SET vector = excluded.vector;

-- name: put_reached(workspace, model, reached, indexed, ready_at)!
-- How far a model is with a workspace by now.
UPDATE embedder SET reached = :reached, indexed = :indexed, ready_at = coalesce(ready_at, :ready_at)
WHERE workspace = :workspace AND model = :model;

-- name: forget_embedder(workspace, model)!
-- A model that another one took the place of.
WITH gone AS (DELETE FROM embedder WHERE workspace = :workspace AND model = :model)
DELETE FROM embedding WHERE workspace = :workspace AND model = :model;

-- name: forget_near(workspace, model)!
-- Its vectors under the index.
DELETE FROM near WHERE workspace = :workspace AND model = :model;

-- name: embeddings_after(workspace, model, after, most)
-- Vectors in the order of their meanings.
SELECT id, vector FROM embedding WHERE workspace = :workspace AND model = :model AND id > :after ORDER BY id LIMIT :most;

-- name: embeddings_of(workspace, model, ids)
-- The vectors of some meanings.
SELECT id, vector FROM embedding WHERE workspace = :workspace AND model = :model AND id = ANY(:ids::bigint[]);

-- name: nearest(workspace, model, dimensions, vector, most)
-- The nearest meanings by the index.
SELECT id, similarity FROM nearest(:workspace, :model, :dimensions, :vector, :most);

-- name: number_fields(workspace)
-- Which numbers there are, by steps along the key.
WITH RECURSIVE found AS (
    (SELECT field FROM measured WHERE workspace = :workspace ORDER BY field LIMIT 1)
    UNION ALL
    SELECT (SELECT m.field FROM measured AS m WHERE m.workspace = :workspace AND m.field > found.field ORDER BY m.field LIMIT 1)
    FROM found WHERE found.field IS NOT NULL)
SELECT field FROM found WHERE field IS NOT NULL LIMIT 1000;
