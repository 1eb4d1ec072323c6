-- Reuse before build: what teams mean to build, what they were shown, how each ended; and who uses which version.

-- What a team described, and the answer as it was given, so that what was known then can be read later.
CREATE TABLE intent (
    workspace  text NOT NULL,
    intent_id  uuid NOT NULL,
    team       text NOT NULL,
    kind       text NOT NULL,
    task       text,
    wish       jsonb NOT NULL,
    candidates jsonb NOT NULL,
    who        text NOT NULL,
    who_proven boolean NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, intent_id)
);
CREATE INDEX intent_at ON intent (workspace, created_at, intent_id);
SELECT mintmark_protect('intent');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON intent
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Who uses a version. One that was released is used no longer; the log stays.
CREATE TABLE binding (
    workspace  text NOT NULL,
    binding_id uuid NOT NULL,
    urn        text NOT NULL,
    version    integer NOT NULL,
    consumer   text NOT NULL,
    purpose    text NOT NULL,
    intent_id  uuid,
    who        text NOT NULL,
    who_proven boolean NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (workspace, binding_id),
    FOREIGN KEY (workspace, urn, version) REFERENCES version (workspace, urn, version),
    FOREIGN KEY (workspace, intent_id) REFERENCES intent (workspace, intent_id)
);
CREATE INDEX binding_of ON binding (workspace, urn, version, at);
CREATE INDEX binding_by ON binding (workspace, consumer, at);
SELECT mintmark_protect('binding');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON binding
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE binding_release (
    workspace  text NOT NULL,
    binding_id uuid NOT NULL,
    reason     text NOT NULL,
    who        text NOT NULL,
    who_proven boolean NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (workspace, binding_id),
    FOREIGN KEY (workspace, binding_id) REFERENCES binding (workspace, binding_id)
);
SELECT mintmark_protect('binding_release');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON binding_release
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- How an intent ended, once: a version was bound, or something is built, with what each candidate lacks.
CREATE TABLE intent_outcome (
    workspace  text NOT NULL,
    intent_id  uuid NOT NULL,
    outcome    text NOT NULL CHECK (outcome IN ('reuse', 'build')),
    binding_id uuid,
    why_not    jsonb NOT NULL,
    reason     text NOT NULL,
    who        text NOT NULL,
    who_proven boolean NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (workspace, intent_id),
    FOREIGN KEY (workspace, intent_id) REFERENCES intent (workspace, intent_id),
    FOREIGN KEY (workspace, binding_id) REFERENCES binding (workspace, binding_id),
    CHECK ((outcome = 'reuse') = (binding_id IS NOT NULL))
);
SELECT mintmark_protect('intent_outcome');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON intent_outcome
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
