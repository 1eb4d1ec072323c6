-- Edges as intervals: one that ended and holds again is another row, so that the lineage can be asked for as of any
-- moment. What is asked most, the edges of now, has indexes of its own, which history does not make longer.
ALTER TABLE edge DROP CONSTRAINT edge_pkey;
DROP INDEX edge_to;
ALTER TABLE edge ADD COLUMN properties jsonb NOT NULL DEFAULT '{}';

-- The order in which transactions became visible: an edge is told to others only when no transaction of before it can
-- still commit. A number alone is taken before the commit, so that a reader could pass one by that is still to come.
ALTER TABLE edge ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY;
ALTER TABLE edge ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE UNIQUE INDEX edge_open ON edge (workspace, source, association, destination) WHERE until IS NULL;
CREATE INDEX edge_open_to ON edge (workspace, destination, association, source) WHERE until IS NULL;
CREATE INDEX edge_ended ON edge (workspace, source, until) WHERE until IS NOT NULL;
CREATE INDEX edge_ended_to ON edge (workspace, destination, until) WHERE until IS NOT NULL;
CREATE INDEX edge_told ON edge (workspace, xid, number);

-- What was heard of runs, of ours and of others' (OpenLineage).
CREATE TABLE lineage_run (
    workspace  text NOT NULL,
    run_id     text NOT NULL,
    job        text NOT NULL,
    state      text NOT NULL,
    state_at   timestamptz NOT NULL,
    started_at timestamptz,
    ended_at   timestamptz,
    PRIMARY KEY (workspace, run_id)
);
SELECT mintmark_protect('lineage_run');

-- OpenLineage events as they came, each once: the digest is over the canonical event.
CREATE TABLE openlineage_event (
    workspace   text NOT NULL,
    digest      text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('run', 'dataset', 'job')),
    event_at    timestamptz NOT NULL,
    document    jsonb NOT NULL,
    who         text NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, digest)
);
SELECT mintmark_protect('openlineage_event');

-- Each facet of a node by its newest word, whatever it says: a facet that nobody here knows is kept like any other.
CREATE TABLE openlineage_facet (
    workspace text NOT NULL,
    node      text NOT NULL,
    scope     text NOT NULL,
    name      text NOT NULL,
    at        timestamptz NOT NULL,
    document  jsonb NOT NULL,
    PRIMARY KEY (workspace, node, scope, name)
);
SELECT mintmark_protect('openlineage_facet');

-- How far this installation's lineage was told to an OpenLineage server; the lease says which process is at it.
CREATE TABLE openlineage_cursor (
    workspace text NOT NULL,
    url       text NOT NULL,
    xid       xid8 NOT NULL,
    number    bigint NOT NULL,
    told      bigint NOT NULL DEFAULT 0,
    skipped   bigint NOT NULL DEFAULT 0,
    attempts  integer NOT NULL DEFAULT 0,
    error     text,
    lease     uuid,
    due_at    timestamptz NOT NULL,
    PRIMARY KEY (workspace, url)
);
SELECT mintmark_protect('openlineage_cursor');
