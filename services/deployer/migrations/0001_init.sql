-- What the deployer must know of versions, gates, approvals and traffic, and its own work: deployments and their steps.
-- Runs as the deployer's role, with search_path set to its schema, after the kernel's migrations.

-- Read model of asset.registered. `content` holds what a bundle is made of: {artefact, signature, training, licence}.
CREATE TABLE asset (
    workspace text NOT NULL,
    urn       text NOT NULL,
    version   integer NOT NULL,
    digest    text NOT NULL,
    kind      text NOT NULL,
    task      text,
    content   jsonb NOT NULL,
    PRIMARY KEY (workspace, urn, version)
);
SELECT mintmark_protect('asset');

-- Read model of gate.decided, in the order heard; the newest of a binding is in force.
CREATE TABLE gate (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace  text NOT NULL,
    gate_id    uuid NOT NULL,
    urn        text NOT NULL,
    version    integer NOT NULL,
    verdict    text NOT NULL,
    reason     text NOT NULL,
    binding    text NOT NULL,
    decided_at timestamptz NOT NULL
);
CREATE INDEX gate_of_version ON gate (workspace, urn, version, number);
SELECT mintmark_protect('gate');

-- Read model of approval.decided, in the order heard; the newest of a version is in force. `statement` is the DSSE
-- envelope: only what its signature proves is ever believed, nothing else of this row lets a version through.
CREATE TABLE approval (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace   text NOT NULL,
    approval_id uuid NOT NULL,
    urn         text NOT NULL,
    version     integer NOT NULL,
    decision    text NOT NULL,
    reason      text NOT NULL,
    statement   jsonb,
    decided_at  timestamptz NOT NULL
);
CREATE INDEX approval_of_version ON approval (workspace, urn, version, number);
SELECT mintmark_protect('approval');

-- Read model of group.changed: who carries traffic. arms: [{"urn": …, "version": 3, "role": …, "weight_bp": 1000}]
CREATE TABLE traffic (
    workspace  text NOT NULL,
    group_name text NOT NULL,
    revision   bigint NOT NULL,
    arms       jsonb NOT NULL,
    PRIMARY KEY (workspace, group_name)
);
SELECT mintmark_protect('traffic');

-- One wish to have a version on a target. Worked on by whoever holds `lease` until `leased_until`; what is kept here is
-- how far it got, so that another can go on. `request` is the digest of what was asked, under a request_id used once.
-- While it is worked on: requested -> approved -> bundled -> loaded -> completed. A completed one that the target has
-- lost is restoring; one to be taken away is undeploying.
CREATE TABLE deployment (
    number         bigint GENERATED ALWAYS AS IDENTITY,
    workspace      text NOT NULL,
    deployment_id  uuid PRIMARY KEY,
    request_id     uuid NOT NULL,
    request        text NOT NULL,
    event_id       text NOT NULL,
    urn            text NOT NULL,
    version        integer NOT NULL CHECK (version >= 1),
    digest         text NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    target         text NOT NULL,
    parameters     jsonb NOT NULL,
    requested_by   jsonb NOT NULL,
    state          text NOT NULL CHECK (state IN ('requested', 'approved', 'bundled', 'loaded', 'completed', 'restoring',
                                                  'undeploying', 'undeployed', 'failed')),
    approval_id    uuid,
    bundle         text,
    model_name     text,
    endpoint       text,
    code           text,
    reason         text,
    tries          integer NOT NULL DEFAULT 0,
    due_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease          uuid,
    leased_until   timestamptz,
    requested_at   timestamptz NOT NULL,
    ended_at       timestamptz,
    correlation_id text,
    causation_id   text,
    traceparent    text,
    UNIQUE (workspace, request_id)
) WITH (fillfactor = 70);
CREATE INDEX deployment_due ON deployment (due_at)
    WHERE state IN ('requested', 'approved', 'bundled', 'loaded', 'restoring', 'undeploying');
CREATE INDEX deployment_of_version ON deployment (workspace, urn, version, target);
CREATE UNIQUE INDEX deployment_number ON deployment (workspace, number);
SELECT mintmark_protect('deployment');

-- What was done, in order; never changed.
CREATE TABLE step (
    number        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace     text NOT NULL,
    deployment_id uuid NOT NULL REFERENCES deployment (deployment_id),
    step          text NOT NULL,
    detail        text NOT NULL,
    at            timestamptz NOT NULL
);
CREATE INDEX step_of_deployment ON step (deployment_id, number);
SELECT mintmark_protect('step');
