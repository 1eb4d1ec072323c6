-- Splits of labels, what policy says of versions, what was measured of them, and who fetches them.

-- A split sends some units that ask for a label to other labels' versions; the last row of a label counts. `arms` is
-- {"<label>": [[start, end], …]} over 10,000 buckets, what is not in it stays with the label itself.
CREATE TABLE label_split (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace text NOT NULL,
    name      text NOT NULL,
    label     text NOT NULL,
    arms      jsonb NOT NULL,
    reason    text NOT NULL,
    actor     text NOT NULL,
    at        timestamptz NOT NULL
);
CREATE INDEX label_split_of ON label_split (workspace, name, label, id DESC);
SELECT mintmark_protect('label_split');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON label_split
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER changed AFTER INSERT ON label_split FOR EACH ROW EXECUTE FUNCTION say_prompt_changed();

-- Read model of policy.published with policy `protection`: labels that move only with a pass and an approval.
CREATE TABLE protection (
    workspace text PRIMARY KEY,
    number    integer NOT NULL,
    labels    text[] NOT NULL
);
SELECT mintmark_protect('protection');

-- Read model of gate.decided: the newest verdict on a version of the registry, and the waivers that it rests on.
CREATE TABLE verdict (
    workspace  text NOT NULL,
    name       text NOT NULL,
    version    integer NOT NULL,
    digest     text NOT NULL,
    verdict    text NOT NULL,
    waivers    uuid[] NOT NULL,
    binding    text NOT NULL,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, name, version)
);
SELECT mintmark_protect('verdict');

-- Read model of approval.decided: the newest decision of a person on a version of the registry.
CREATE TABLE approval (
    workspace  text NOT NULL,
    name       text NOT NULL,
    version    integer NOT NULL,
    digest     text NOT NULL,
    decision   text NOT NULL,
    approver   text NOT NULL,
    binding    text NOT NULL,
    expires_at timestamptz,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, name, version)
);
SELECT mintmark_protect('approval');

-- Read model of waiver.signed: a rule set aside for a version of the registry.
CREATE TABLE waiver (
    workspace  text NOT NULL,
    waiver_id  uuid NOT NULL,
    name       text NOT NULL,
    version    integer NOT NULL,
    digest     text NOT NULL,
    measure    text NOT NULL,
    expires_at timestamptz NOT NULL,
    withdrawn_at timestamptz,
    PRIMARY KEY (workspace, waiver_id)
);
SELECT mintmark_protect('waiver');

-- Read model of eval.completed and eval.failed for prompts. `task` is the template that measured it, `model` what
-- answered, where the evaluation said so.
CREATE TABLE evidence (
    workspace     text NOT NULL,
    evaluation_id uuid NOT NULL,
    name          text NOT NULL,
    version       integer NOT NULL,
    digest        text NOT NULL,
    task          text,
    model         text,
    golden_set    text,
    measures      jsonb NOT NULL,
    rows          bigint NOT NULL,
    errors        bigint NOT NULL,
    report        text,
    code          text,
    reason        text,
    at            timestamptz NOT NULL,
    PRIMARY KEY (workspace, evaluation_id)
);
CREATE INDEX evidence_of ON evidence (workspace, name, version);
SELECT mintmark_protect('evidence');

-- What a prompt is meant for: a model and a use case.
CREATE TABLE binding (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace text NOT NULL,
    name      text NOT NULL,
    model     text NOT NULL,
    use_case  text NOT NULL,
    label     text NOT NULL,
    actor     text NOT NULL,
    at        timestamptz NOT NULL,
    UNIQUE (workspace, name, model, use_case)
);
SELECT mintmark_protect('binding');

-- Fetches by day, version, application and group; filled in batches, never by a fetch.
CREATE TABLE usage (
    workspace   text NOT NULL,
    name        text NOT NULL,
    version     integer NOT NULL,
    application text NOT NULL,
    group_name  text NOT NULL,
    day         date NOT NULL,
    fetches     bigint NOT NULL,
    last_at     timestamptz NOT NULL,
    PRIMARY KEY (workspace, name, version, application, group_name, day)
);
SELECT mintmark_protect('usage');

CREATE INDEX prompt_version_asset ON prompt_version (workspace, name, asset_version);
