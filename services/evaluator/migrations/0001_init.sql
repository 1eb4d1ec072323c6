-- What the evaluator knows of datasets and assets, and its own evaluations, cut into shards that workers claim.

CREATE TABLE dataset (
    workspace text NOT NULL,
    urn       text NOT NULL,
    version   integer NOT NULL,
    digest    text NOT NULL,
    manifest  jsonb NOT NULL,
    decision  text CHECK (decision IN ('approved', 'rejected')),
    PRIMARY KEY (workspace, urn, version)
);
SELECT mintmark_protect('dataset');

CREATE TABLE asset (
    workspace       text NOT NULL,
    urn             text NOT NULL,
    version         integer NOT NULL,
    digest          text NOT NULL,
    kind            text NOT NULL,
    task            text,
    artefact        jsonb,
    signature       jsonb NOT NULL,
    golden_urn      text,
    golden_version  integer,
    PRIMARY KEY (workspace, urn, version)
);
SELECT mintmark_protect('asset');

CREATE TABLE evaluation (
    workspace      text NOT NULL,
    id             uuid NOT NULL,
    urn            text NOT NULL,
    version        integer NOT NULL,
    golden_urn     text NOT NULL,
    golden_version integer NOT NULL,
    template       text NOT NULL,
    state          text NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    rows           integer,
    attempts       integer NOT NULL DEFAULT 0,
    lease_until    timestamptz,
    report         text,
    measures       jsonb,
    code           text,
    reason         text,
    requested_at   timestamptz NOT NULL,
    started_at     timestamptz,
    ended_at       timestamptz,
    correlation_id text,
    causation_id   text,
    traceparent    text,
    PRIMARY KEY (workspace, id)
);
CREATE INDEX evaluation_open ON evaluation (requested_at) WHERE state IN ('waiting', 'running');
CREATE INDEX evaluation_of_asset ON evaluation (workspace, urn, version, requested_at DESC);
SELECT mintmark_protect('evaluation');

-- `result` is what the template made of the rows; with it a shard is done for good, whoever dies afterwards.
CREATE TABLE shard (
    workspace     text NOT NULL,
    evaluation_id uuid NOT NULL,
    index         integer NOT NULL,
    start         integer NOT NULL,
    stop          integer NOT NULL,
    result        bytea,
    attempts      integer NOT NULL DEFAULT 0,
    lease_until   timestamptz,
    PRIMARY KEY (workspace, evaluation_id, index)
);
SELECT mintmark_protect('shard');
