-- Batches: a file of rows that are asked of a group one by one, through its gateway, as any caller asks (batches/).

-- The files that a workspace has given for its batches, and those that they made. The bytes are in the artefact store, which
-- knows no workspaces: a digest that somebody else's file has opens nothing.
CREATE TABLE batch_file (
    workspace text NOT NULL,
    digest    text NOT NULL,
    size      bigint NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (workspace, digest)
);
SELECT mintmark_protect('batch_file');

-- `spec` says what the file is and how it is read. `who` and `roles` are whose request it is: the gateway judges each row
-- by them. A worker holds a job until `lease_until`; `next_at` is when there is something to do, NULL when it is over.
-- `recorded` of `total` rows have a result, `failed` of those are errors. `waits_for` says why a running job stands still.
CREATE TABLE batch_job (
    id            uuid PRIMARY KEY,
    workspace     text NOT NULL,
    group_name    text NOT NULL,
    spec          jsonb NOT NULL,
    state         text NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    cancel        boolean NOT NULL DEFAULT false,
    who           text NOT NULL,
    roles         text[] NOT NULL,
    created_at    timestamptz NOT NULL,
    started_at    timestamptz,
    ended_at      timestamptz,
    next_at       timestamptz,
    total         bigint,
    recorded      bigint NOT NULL DEFAULT 0,
    failed        bigint NOT NULL DEFAULT 0,
    output        text,
    error_code    text,
    error_message text,
    waits_for     text,
    lease_until   timestamptz,
    lease_owner   uuid,
    CHECK ((state IN ('queued', 'running')) = (next_at IS NOT NULL)),
    CHECK ((state = 'done') = (output IS NOT NULL))
);
CREATE INDEX batch_due ON batch_job (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX batch_of_group ON batch_job (workspace, group_name, created_at DESC, id DESC);
SELECT mintmark_protect('batch_job');

-- What each row was answered, until all are in the output file. `result` is JSON as text: it may hold what jsonb may not.
CREATE TABLE batch_result (
    workspace text NOT NULL,
    job_id    uuid NOT NULL REFERENCES batch_job (id) ON DELETE CASCADE,
    position  bigint NOT NULL,
    result    text NOT NULL,
    PRIMARY KEY (job_id, position)
);
SELECT mintmark_protect('batch_result');
