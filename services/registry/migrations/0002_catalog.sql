-- What people call an asset, and what may be said of an asset or a version after it was registered: description, tags,
-- title, and that a version is hidden. Versions stay as they are; what was said of them last stands beside them.

-- `revision` counts the changes of metadata. A hidden asset is one that a client of MLflow deleted: its versions are
-- yanked, its numbers are never given again, and making it anew opens it again.
ALTER TABLE asset
    ADD COLUMN title       text,
    ADD COLUMN description text NOT NULL DEFAULT '',
    ADD COLUMN tags        jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN revision    integer NOT NULL DEFAULT 0,
    ADD COLUMN updated_at  timestamptz,
    ADD COLUMN hidden      boolean NOT NULL DEFAULT false;
UPDATE asset SET title = name, updated_at = created_at;
ALTER TABLE asset ALTER COLUMN title SET NOT NULL, ALTER COLUMN updated_at SET NOT NULL;
CREATE UNIQUE INDEX asset_title ON asset (workspace, title, kind);

-- Every change of metadata: of a version, or of the asset where version is 0. `field` is description, title, yanked,
-- hidden or tag:<key>; `before` and `after` are NULL where there was, or is, none.
CREATE TABLE metadata_change (
    workspace  text NOT NULL,
    urn        text NOT NULL,
    version    integer NOT NULL CHECK (version >= 0),
    revision   integer NOT NULL CHECK (revision >= 1),
    field      text NOT NULL,
    before     text,
    after      text,
    who        text NOT NULL,
    who_proven boolean NOT NULL,
    reason     text NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn, version, revision, field),
    FOREIGN KEY (workspace, urn) REFERENCES asset (workspace, urn)
);
SELECT mintmark_protect('metadata_change');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON metadata_change
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The outcome of a version's changes; no row where nothing was changed, so that registering one writes nothing here.
CREATE TABLE version_state (
    workspace   text NOT NULL,
    urn         text NOT NULL,
    version     integer NOT NULL,
    description text NOT NULL,
    tags        jsonb NOT NULL,
    revision    integer NOT NULL,
    yanked_at   timestamptz,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (workspace, urn, version),
    FOREIGN KEY (workspace, urn, version) REFERENCES version (workspace, urn, version)
) WITH (fillfactor = 80);
SELECT mintmark_protect('version_state');

-- A version as it is called, described and tagged now.
CREATE VIEW version_now WITH (security_invoker = true) AS
SELECT v.number, v.workspace, v.urn, v.version, v.digest, v.content, v.artefact_digest, v.artefact_size, v.metrics,
       v.author, v.author_proven, v.submission_id, v.registered_at, a.title, a.kind,
       coalesce(s.tags, v.tags) AS tags, coalesce(s.description, v.description) AS description,
       coalesce(s.revision, 0) AS revision, coalesce(s.updated_at, v.registered_at) AS updated_at, s.yanked_at
FROM version AS v
JOIN asset AS a ON a.workspace = v.workspace AND a.urn = v.urn
LEFT JOIN version_state AS s ON s.workspace = v.workspace AND s.urn = v.urn AND s.version = v.version;
