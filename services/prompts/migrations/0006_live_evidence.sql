-- What prompts did in traffic: which versions close over them, and what those did.

-- Read model of asset.registered: a version of the registry closes over a version of a prompt, both by the registry's
-- numbers and digests.
CREATE TABLE closure (
    workspace      text NOT NULL,
    name           text NOT NULL,
    prompt_version integer NOT NULL,
    prompt_digest  text NOT NULL,
    urn            text NOT NULL,
    version        integer NOT NULL,
    digest         text NOT NULL,
    PRIMARY KEY (workspace, name, prompt_version, urn, version)
);
SELECT mintmark_protect('closure');

-- Read model of group.measured: the newest figures of a version in a group; a shadow's copies are figures of their own.
CREATE TABLE live_figures (
    workspace  text NOT NULL,
    urn        text NOT NULL,
    version    integer NOT NULL,
    group_name text NOT NULL,
    is_shadow  boolean NOT NULL,
    digest     text NOT NULL,
    role       text NOT NULL,
    since      timestamptz NOT NULL,
    until      timestamptz NOT NULL,
    requests   bigint NOT NULL,
    errors     bigint NOT NULL,
    latency_ms jsonb NOT NULL,
    measures   jsonb NOT NULL,
    PRIMARY KEY (workspace, urn, version, group_name, is_shadow)
) WITH (fillfactor = 70);
SELECT mintmark_protect('live_figures');

-- Versions that somebody could take by a name for them: those that carry a label, and the newest.
CREATE VIEW candidate WITH (security_invoker = true) AS
WITH pointer AS (
    SELECT DISTINCT ON (workspace, name, label) workspace, name, label, after FROM label_move
    ORDER BY workspace, name, label, id DESC
), held AS (
    SELECT workspace, name, after AS version, label FROM pointer WHERE after IS NOT NULL
    UNION ALL SELECT workspace, name, max(version), 'latest' FROM released GROUP BY workspace, name
)
SELECT v.workspace, v.name, p.title, v.version, v.asset_version, v.asset_digest, array_agg(h.label ORDER BY h.label) AS labels
FROM held h
JOIN prompt p USING (workspace, name)
JOIN prompt_version v USING (workspace, name, version)
GROUP BY v.workspace, v.name, p.title, v.version, v.asset_version, v.asset_digest;
