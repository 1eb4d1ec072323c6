-- What came from another registry: the name it has there, and what it is here. `version` is 0 for the asset itself.
--
-- `fingerprint` stands for what cannot change of it there; `said` holds a digest of each thing that was said of it when
-- it was read last (description, tag:<key>, stage, alias:<name>), so that a change there is told from a change here.
CREATE TABLE imported (
    workspace   text NOT NULL,
    source      text NOT NULL,
    source_id   text NOT NULL,
    urn         text NOT NULL,
    version     integer NOT NULL CHECK (version >= 0),
    fingerprint text NOT NULL,
    said        jsonb NOT NULL,
    first_at    timestamptz NOT NULL,
    last_at     timestamptz NOT NULL,
    PRIMARY KEY (workspace, source, source_id),
    FOREIGN KEY (workspace, urn) REFERENCES asset (workspace, urn)
) WITH (fillfactor = 80);
CREATE INDEX imported_here ON imported (workspace, urn, version);
SELECT mintmark_protect('imported');
