-- Proposals: a change to what a label points at, made as a candidate version, decided on, and merged or closed.

CREATE TABLE proposal (
    workspace    text NOT NULL,
    proposal_id  uuid NOT NULL,
    name         text NOT NULL,
    label        text NOT NULL,
    summary      text NOT NULL,
    -- What the label pointed at when the newest candidate was made; null where it pointed nowhere.
    base_version integer,
    head_version integer NOT NULL,
    authors      text[] NOT NULL,
    state        text NOT NULL CHECK (state IN ('open', 'merged', 'closed')),
    -- Of the newest candidate alone: another one starts without.
    decision     text CHECK (decision IN ('approved', 'rejected')),
    decided_by   text,
    opened_at    timestamptz NOT NULL,
    merged_at    timestamptz,
    PRIMARY KEY (workspace, proposal_id)
);
CREATE INDEX proposal_of ON proposal (workspace, name, opened_at DESC);
SELECT mintmark_protect('proposal');

-- Everything that happened to a proposal.
CREATE TABLE proposal_step (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace   text NOT NULL,
    proposal_id uuid NOT NULL,
    what        text NOT NULL,
    version     integer,
    actor       text NOT NULL,
    reason      text NOT NULL,
    at          timestamptz NOT NULL
);
CREATE INDEX proposal_step_of ON proposal_step (workspace, proposal_id, id);
SELECT mintmark_protect('proposal_step');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON proposal_step
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A candidate and what it would replace, sent to be measured on the same rows; the ids are those of the evaluations.
CREATE TABLE comparison (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace     text NOT NULL,
    proposal_id   uuid NOT NULL,
    head_version  integer NOT NULL,
    head_request  uuid NOT NULL,
    base_version  integer,
    base_request  uuid,
    golden_set    text NOT NULL,
    task          text NOT NULL,
    actor         text NOT NULL,
    at            timestamptz NOT NULL
);
CREATE INDEX comparison_of ON comparison (workspace, proposal_id, id DESC);
SELECT mintmark_protect('comparison');

-- Versions that count for `latest`: candidates from the moment on at which their proposal is merged.
CREATE VIEW released WITH (security_invoker = true) AS
SELECT v.*, coalesce(p.merged_at, v.published_at) AS released_at
FROM prompt_version v
LEFT JOIN proposal p ON p.workspace = v.workspace AND p.proposal_id = v.proposal AND p.head_version = v.version
WHERE v.proposal IS NULL OR p.state = 'merged';

CREATE TRIGGER changed AFTER UPDATE OF state ON proposal FOR EACH ROW EXECUTE FUNCTION say_prompt_changed();
