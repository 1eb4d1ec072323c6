-- Assets, their immutable versions, pointers as logs, submissions, artefacts held, lineage, what others said of a
-- version, and the terms that search finds it by. Runs as the registry's role after the kernel's migrations.
--
-- Row-level security keeps an index from being used with operators that are not leakproof (full text, jsonb
-- containment), and with its OR: so every query also says `workspace = …`, and every key begins with it.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only; add a row instead of changing one', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- One row an asset. Taking the next version number locks it until commit: numbers have no gap.
CREATE TABLE asset (
    workspace    text NOT NULL,
    urn          text NOT NULL,
    kind         text NOT NULL,
    name         text NOT NULL,
    last_version integer NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn)
) WITH (fillfactor = 70);
SELECT mintmark_protect('asset');

-- One immutable version. `content` is what `digest` covers; `number` is the order of registration over all assets.
CREATE TABLE version (
    number          bigint GENERATED ALWAYS AS IDENTITY,
    workspace       text NOT NULL,
    urn             text NOT NULL,
    version         integer NOT NULL CHECK (version >= 1),
    digest          text NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    content         jsonb NOT NULL,
    artefact_digest text,
    artefact_size   bigint,
    tags            jsonb NOT NULL,
    description     text NOT NULL,
    metrics         jsonb NOT NULL,
    author          text NOT NULL,
    author_proven   boolean NOT NULL,
    submission_id   uuid NOT NULL,
    registered_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn, version),
    FOREIGN KEY (workspace, urn) REFERENCES asset (workspace, urn)
);
CREATE UNIQUE INDEX version_once ON version (workspace, urn, digest);
CREATE UNIQUE INDEX version_number ON version (workspace, number);
CREATE INDEX version_of_artefact ON version (workspace, artefact_digest) WHERE artefact_digest IS NOT NULL;
SELECT mintmark_protect('version');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The inverted index of search: `kind:model`, `tag:team=labour`, `word:employ`, `stage:production`. Equality on text is
-- leakproof, so that this index works under row-level security, where a GIN index on a tsvector does not.
CREATE TABLE term (
    workspace text NOT NULL,
    term      text NOT NULL,
    number    bigint NOT NULL,
    PRIMARY KEY (workspace, term, number)
);
SELECT mintmark_protect('term');

-- What was submitted, by whom, and what became of it. `fetching` is work for the worker, which holds it by a lease.
-- `vouching` waits for the prompts service to say who the author is.
CREATE TABLE submission (
    workspace      text NOT NULL,
    submission_id  uuid NOT NULL,
    event_id       text NOT NULL,
    urn            text NOT NULL,
    request        text NOT NULL,
    document       jsonb NOT NULL,
    author         text NOT NULL,
    author_proven  boolean NOT NULL,
    state          text NOT NULL CHECK (state IN ('vouching', 'fetching', 'registered', 'refused')),
    version        integer,
    code           text,
    reason         text,
    attempts       integer NOT NULL DEFAULT 0,
    due_at         timestamptz NOT NULL,
    lease          uuid,
    correlation_id text,
    causation_id   text,
    traceparent    text,
    received_at    timestamptz NOT NULL,
    decided_at     timestamptz,
    PRIMARY KEY (workspace, submission_id)
) WITH (fillfactor = 80);
CREATE INDEX submission_due ON submission (due_at) WHERE state IN ('vouching', 'fetching');
SELECT mintmark_protect('submission');

-- Who the prompts service says wrote a prompt version; heard before or after the submission itself.
CREATE TABLE vouched (
    workspace     text NOT NULL,
    submission_id uuid NOT NULL,
    name          text NOT NULL,
    version       integer NOT NULL,
    author        text NOT NULL,
    author_proven boolean NOT NULL,
    PRIMARY KEY (workspace, submission_id)
);
SELECT mintmark_protect('vouched');

-- Bytes that this workspace has uploaded, had fetched or registered; nobody else's are shown to it.
CREATE TABLE artefact (
    workspace text NOT NULL,
    digest    text NOT NULL,
    size      bigint NOT NULL,
    since     timestamptz NOT NULL,
    PRIMARY KEY (workspace, digest)
);
SELECT mintmark_protect('artefact');

-- Every move of an alias. `after` is NULL where it was removed; the last revision is where it points now.
CREATE TABLE alias_move (
    workspace  text NOT NULL,
    urn        text NOT NULL,
    alias      text NOT NULL,
    revision   integer NOT NULL CHECK (revision >= 1),
    before     integer,
    after      integer,
    who        text NOT NULL,
    who_proven boolean NOT NULL,
    reason     text NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn, alias, revision),
    FOREIGN KEY (workspace, urn, after) REFERENCES version (workspace, urn, version)
);
SELECT mintmark_protect('alias_move');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON alias_move
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Every move of a version between stages; a version with no row is in development.
CREATE TABLE stage_move (
    workspace  text NOT NULL,
    urn        text NOT NULL,
    version    integer NOT NULL,
    revision   integer NOT NULL CHECK (revision >= 1),
    before     text NOT NULL,
    after      text NOT NULL,
    who        text NOT NULL,
    who_proven boolean NOT NULL,
    reason     text NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn, version, revision),
    FOREIGN KEY (workspace, urn, version) REFERENCES version (workspace, urn, version)
);
CREATE INDEX stage_move_at ON stage_move (workspace, urn, at);
SELECT mintmark_protect('stage_move');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON stage_move
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Lineage. Nodes are named by what they are: mm:model/x@3, run:17, evaluation:<id>, gate:<id>, approval:<id>,
-- deployment:<id>, group:<name>. `until` ends an edge that held for a time, as a version in a group does.
CREATE TABLE edge (
    workspace   text NOT NULL,
    source      text NOT NULL,
    association text NOT NULL CHECK (association IN ('ContributedTo', 'AssociatedWith', 'DerivedFrom', 'Produced', 'SameAs')),
    destination text NOT NULL,
    since       timestamptz NOT NULL,
    until       timestamptz,
    event_id    text NOT NULL,
    PRIMARY KEY (workspace, source, association, destination)
);
CREATE INDEX edge_to ON edge (workspace, destination);
SELECT mintmark_protect('edge');

-- What other services said of a version (of the whole asset where version is 0), shown beside it.
CREATE TABLE finding (
    workspace text NOT NULL,
    kind      text NOT NULL,
    id        text NOT NULL,
    urn       text NOT NULL,
    version   integer NOT NULL,
    at        timestamptz NOT NULL,
    document  jsonb NOT NULL,
    PRIMARY KEY (workspace, kind, id)
);
CREATE INDEX finding_of_version ON finding (workspace, urn, version, kind, at);
SELECT mintmark_protect('finding');

-- The newest revision of each model group that was heard, so that an older one changes nothing.
CREATE TABLE model_group (
    workspace text NOT NULL,
    name      text NOT NULL,
    revision  bigint NOT NULL,
    arms      jsonb NOT NULL,
    PRIMARY KEY (workspace, name)
);
SELECT mintmark_protect('model_group');
