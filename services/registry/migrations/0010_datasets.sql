-- Datasets: locks and holds as logs, how long bytes are kept and what became of them, rows counted by their hashes.
SELECT set_config('mintmark.workspace', '*', true);

-- One row a dataset version. Released: its bytes are nobody's any more; erased: they are gone, and the receipt says so.
CREATE TABLE dataset (
    workspace   text NOT NULL,
    urn         text NOT NULL,
    version     integer NOT NULL,
    expires_at  timestamptz,
    released_at timestamptz,
    plan        jsonb,
    erased_at   timestamptz,
    receipt     jsonb,
    PRIMARY KEY (workspace, urn, version),
    FOREIGN KEY (workspace, urn, version) REFERENCES version (workspace, urn, version)
);
CREATE INDEX dataset_expiring ON dataset (expires_at) WHERE expires_at IS NOT NULL AND released_at IS NULL;
CREATE INDEX dataset_released ON dataset (released_at) WHERE released_at IS NOT NULL AND erased_at IS NULL;
SELECT mintmark_protect('dataset');

-- Which bytes a dataset version rests on; another version may rest on the same.
CREATE TABLE dataset_file (
    workspace text NOT NULL,
    digest    text NOT NULL,
    urn       text NOT NULL,
    version   integer NOT NULL,
    PRIMARY KEY (workspace, digest, urn, version)
);
CREATE INDEX dataset_file_of ON dataset_file (workspace, urn, version);
SELECT mintmark_protect('dataset_file');
CREATE INDEX artefact_anywhere ON artefact (digest);

-- Every locking of a golden set and every legal hold, and their ends.
CREATE TABLE dataset_move (
    workspace  text NOT NULL,
    urn        text NOT NULL,
    version    integer NOT NULL,
    what       text NOT NULL CHECK (what IN ('golden', 'hold')),
    revision   integer NOT NULL CHECK (revision >= 1),
    holds      boolean NOT NULL,
    who        text NOT NULL,
    who_proven boolean NOT NULL,
    reason     text NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn, version, what, revision)
);
SELECT mintmark_protect('dataset_move');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dataset_move
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Work for the worker: rows of a dataset version to be hashed, a model's training set to be compared with its golden set.
CREATE TABLE dataset_work (
    workspace text NOT NULL,
    urn       text NOT NULL,
    version   integer NOT NULL,
    what      text NOT NULL CHECK (what IN ('rows', 'overlap')),
    state     text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed')),
    due_at    timestamptz NOT NULL,
    attempts  integer NOT NULL DEFAULT 0,
    lease     uuid,
    error     text,
    PRIMARY KEY (workspace, urn, version, what)
) WITH (fillfactor = 80);
CREATE INDEX dataset_work_due ON dataset_work (due_at) WHERE state = 'waiting';
SELECT mintmark_protect('dataset_work');

-- The hashes of a split's rows, as a file among the artefacts (`digest`; NULL once it was erased).
CREATE TABLE dataset_sketch (
    workspace     text NOT NULL,
    urn           text NOT NULL,
    version       integer NOT NULL,
    split         text NOT NULL,
    row_count     bigint NOT NULL,
    distinct_rows bigint NOT NULL,
    halvings      integer NOT NULL,
    digest        text,
    at            timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn, version, split)
);
CREATE INDEX dataset_sketch_digest ON dataset_sketch (digest) WHERE digest IS NOT NULL;
SELECT mintmark_protect('dataset_sketch');

-- What was registered before.
INSERT INTO dataset (workspace, urn, version, expires_at)
SELECT workspace, urn, version, registered_at + (content -> 'manifest' ->> 'retention_days')::integer * interval '1 day'
FROM version WHERE content ->> 'kind' = 'dataset';
INSERT INTO dataset_file (workspace, digest, urn, version)
SELECT DISTINCT workspace, file ->> 'digest', urn, version
FROM version, jsonb_array_elements(content -> 'manifest' -> 'files') AS file WHERE content ->> 'kind' = 'dataset';
INSERT INTO dataset_work (workspace, urn, version, what, due_at)
SELECT workspace, urn, version, 'rows', registered_at FROM version WHERE content ->> 'kind' = 'dataset';
