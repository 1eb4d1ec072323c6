-- Waivers: a named rule set aside for one version, proposed by one person and signed by another, until it expires.
CREATE TABLE waiver (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace   text NOT NULL,
    waiver_id   uuid NOT NULL UNIQUE,
    urn         text NOT NULL,
    version     integer NOT NULL,
    digest      text NOT NULL,
    measure     text NOT NULL,
    observed    double precision,
    reason      text NOT NULL,
    proposer    jsonb NOT NULL,
    proposed_at timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX waiver_of_version ON waiver (workspace, urn, version, id);
SELECT mintmark_protect('waiver');
SELECT append_only('waiver');

-- What became of a waiver: signed or refused by the second person, withdrawn by anyone who may sign; the newest counts.
CREATE TABLE waiver_decision (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace  text NOT NULL,
    waiver_id  uuid NOT NULL,
    decision   text NOT NULL CHECK (decision IN ('signed', 'refused', 'withdrawn')),
    actor      jsonb NOT NULL,
    reason     text NOT NULL,
    statement  jsonb,
    decided_at timestamptz NOT NULL,
    UNIQUE (workspace, waiver_id, decision),
    CHECK ((decision = 'signed') = (statement IS NOT NULL))
);
SELECT mintmark_protect('waiver_decision');
SELECT append_only('waiver_decision');

-- A gate may rest on a waiver of the evaluation itself, and then lapses with it.
ALTER TABLE gate ALTER COLUMN evaluation_id DROP NOT NULL;
ALTER TABLE gate ADD COLUMN expires_at timestamptz;

-- Which aliases, prompt labels and stages move only to a version that was let through; every version of the list.
CREATE TABLE protection (
    workspace    text NOT NULL,
    number       integer NOT NULL CHECK (number >= 1),
    document     jsonb NOT NULL,
    digest       text NOT NULL,
    actor        jsonb NOT NULL,
    reason       text NOT NULL,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, number)
);
SELECT mintmark_protect('protection');
SELECT append_only('protection');
