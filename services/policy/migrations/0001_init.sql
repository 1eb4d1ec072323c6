-- What the policy service knows, decides and records. Runs as its role, after the kernel's migrations.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only; add a row instead of changing one', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION append_only(target regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', target);
    EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %s FROM CURRENT_USER', target);
END $$;

-- Read model of asset.registered: what a gate and an approval need of a version. `prompts` are the digests of its closure.
CREATE TABLE asset (
    workspace       text NOT NULL,
    urn             text NOT NULL,
    version         integer NOT NULL,
    digest          text NOT NULL,
    kind            text NOT NULL,
    task            text,
    artefact_digest text,
    prompts         jsonb NOT NULL DEFAULT '[]',
    golden_set      jsonb,
    author          jsonb NOT NULL,
    registered_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn, version)
);
SELECT mintmark_protect('asset');

-- Read model of dataset.registered. `sensitive` are the columns that fairness is measured by.
CREATE TABLE dataset (
    workspace     text NOT NULL,
    urn           text NOT NULL,
    version       integer NOT NULL,
    digest        text NOT NULL,
    sensitive     jsonb NOT NULL DEFAULT '[]',
    author        jsonb NOT NULL,
    registered_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn, version)
);
SELECT mintmark_protect('dataset');

-- Every version of every gate's rules.
CREATE TABLE gate_policy (
    workspace    text NOT NULL,
    name         text NOT NULL,
    number       integer NOT NULL CHECK (number >= 1),
    document     jsonb NOT NULL,
    digest       text NOT NULL,
    actor        jsonb NOT NULL,
    reason       text NOT NULL DEFAULT '',
    published_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, name, number)
);
SELECT mintmark_protect('gate_policy');
SELECT append_only('gate_policy');

-- Every verdict, with each rule and what it saw; the newest of a version is the one in force.
CREATE TABLE gate (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace      text NOT NULL,
    gate_id        uuid NOT NULL UNIQUE,
    urn            text NOT NULL,
    version        integer NOT NULL,
    evaluation_id  uuid NOT NULL,
    report         text,
    verdict        text NOT NULL CHECK (verdict IN ('pass', 'review', 'reject')),
    rules          jsonb NOT NULL,
    reason         text NOT NULL,
    policy         text NOT NULL,
    policy_version integer NOT NULL,
    binding        text NOT NULL,
    decided_at     timestamptz NOT NULL
);
CREATE INDEX gate_of_version ON gate (workspace, urn, version, id);
SELECT mintmark_protect('gate');
SELECT append_only('gate');

-- Every decision of a person about a gate, and every withdrawal by a later rejecting gate.
CREATE TABLE approval (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace   text NOT NULL,
    approval_id uuid NOT NULL UNIQUE,
    gate_id     uuid NOT NULL,
    urn         text NOT NULL,
    version     integer NOT NULL,
    decision    text NOT NULL CHECK (decision IN ('approved', 'rejected')),
    approver    jsonb NOT NULL,
    author      jsonb NOT NULL,
    reason      text NOT NULL,
    binding     text NOT NULL,
    statement   jsonb,
    expires_at  timestamptz,
    decided_at  timestamptz NOT NULL,
    CHECK ((decision = 'approved') = (statement IS NOT NULL))
);
CREATE INDEX approval_of_version ON approval (workspace, urn, version, id);
SELECT mintmark_protect('approval');
SELECT append_only('approval');

CREATE TABLE dataset_approval (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace  text NOT NULL,
    urn        text NOT NULL,
    version    integer NOT NULL,
    decision   text NOT NULL CHECK (decision IN ('approved', 'rejected')),
    approver   jsonb NOT NULL,
    reason     text NOT NULL,
    decided_at timestamptz NOT NULL
);
CREATE INDEX approval_of_dataset ON dataset_approval (workspace, urn, version, id);
SELECT mintmark_protect('dataset_approval');
SELECT append_only('dataset_approval');

-- The ledger. Events arrive here, one insert each, so that their transactions run side by side; the sealer then moves
-- them into the chain by the thousand. A head row locked by every event would admit one commit to disk at a time.
CREATE TABLE ledger_arrival (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace      text NOT NULL,
    at             timestamptz NOT NULL,
    event_id       text NOT NULL,
    source         text NOT NULL,
    type           text NOT NULL,
    key            text NOT NULL,
    event_time     timestamptz,
    topic          text NOT NULL,
    partition      integer NOT NULL,
    "offset"       bigint NOT NULL,
    trace_id       text,
    correlation_id text,
    causation_id   text,
    proof          text,
    data           bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
CREATE INDEX ledger_arrival_order ON ledger_arrival (workspace, id);
SELECT mintmark_protect('ledger_arrival');

CREATE TABLE ledger_head (
    workspace text PRIMARY KEY,
    index     bigint NOT NULL,
    hash      text NOT NULL
) WITH (fillfactor = 50);
SELECT mintmark_protect('ledger_head');

CREATE TABLE ledger (
    workspace      text NOT NULL,
    index          bigint NOT NULL CHECK (index >= 1),
    at             timestamptz NOT NULL,
    event_id       text NOT NULL,
    source         text NOT NULL,
    type           text NOT NULL,
    key            text NOT NULL,
    event_time     timestamptz,
    topic          text NOT NULL,
    partition      integer NOT NULL,
    "offset"       bigint NOT NULL,
    trace_id       text,
    correlation_id text,
    causation_id   text,
    proof          text,
    data_digest    text NOT NULL,
    data           bytea NOT NULL,
    previous       text NOT NULL,
    hash           text NOT NULL,
    PRIMARY KEY (workspace, index)
);
CREATE INDEX ledger_by_key ON ledger (workspace, key, index);
CREATE INDEX ledger_by_type ON ledger (workspace, type, index);
CREATE INDEX ledger_by_trace ON ledger (workspace, trace_id, index) WHERE trace_id IS NOT NULL;
SELECT mintmark_protect('ledger');
SELECT append_only('ledger');

-- A time as it is hashed and exported: UTC with microseconds.
CREATE FUNCTION ledger_time(moment timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- SHA-256 over the fields, each as `<bytes of UTF-8>:<text>` and a NULL as `-`, so that no two lists of fields have the
-- same text. services/policy/verifier.py computes the same.
CREATE FUNCTION ledger_hash(VARIADIC fields text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'sha256:' || encode(sha256(convert_to(
        string_agg(coalesce(octet_length(convert_to(field, 'UTF8')) || ':' || field, '-'), '' ORDER BY position), 'UTF8')), 'hex')
    FROM unnest(fields) WITH ORDINALITY AS part (field, position)
$$;

-- Move up to p_most arrivals of a workspace into its chain; returns how many. The lock on the head makes it one at a time.
CREATE FUNCTION seal_ledger(p_workspace text, p_most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    head ledger_head;
    arrival ledger_arrival;
    sealed bigint[] := '{}';
    digest text;
    next_hash text;
BEGIN
    INSERT INTO ledger_head VALUES (p_workspace, 0, 'sha256:' || repeat('0', 64)) ON CONFLICT DO NOTHING;
    SELECT * INTO head FROM ledger_head WHERE workspace = p_workspace FOR UPDATE;
    FOR arrival IN SELECT * FROM ledger_arrival WHERE workspace = p_workspace ORDER BY id LIMIT p_most LOOP
        digest := 'sha256:' || encode(sha256(arrival.data), 'hex');
        next_hash := ledger_hash(
            'mintmark-ledger-v1', head.hash, (head.index + 1)::text, p_workspace, ledger_time(arrival.at), arrival.event_id,
            arrival.source, arrival.type, arrival.key, ledger_time(arrival.event_time), arrival.topic,
            arrival.partition::text, arrival."offset"::text, arrival.trace_id, arrival.correlation_id,
            arrival.causation_id, arrival.proof, digest);
        INSERT INTO ledger VALUES (
            p_workspace, head.index + 1, arrival.at, arrival.event_id, arrival.source, arrival.type, arrival.key,
            arrival.event_time, arrival.topic, arrival.partition, arrival."offset", arrival.trace_id,
            arrival.correlation_id, arrival.causation_id, arrival.proof, digest, arrival.data, head.hash, next_hash);
        head.index := head.index + 1;
        head.hash := next_hash;
        sealed := sealed || arrival.id;
    END LOOP;
    DELETE FROM ledger_arrival WHERE id = ANY (sealed);
    UPDATE ledger_head SET index = head.index, hash = head.hash WHERE workspace = p_workspace AND index <> head.index;
    RETURN cardinality(sealed);
END $$;
