-- Models that were described elsewhere: what was proposed, what it became, and corrections that are kept for next time.

-- `document` is the digest of the foreign JSON among the artefacts; `unmapped` what nothing was made of, by pointer.
CREATE TABLE foreign_proposal (
    workspace     text NOT NULL,
    id            uuid NOT NULL,
    document      text NOT NULL,
    shape         text NOT NULL,
    mapping       text,
    fields        jsonb NOT NULL,
    unmapped      jsonb NOT NULL,
    notes         jsonb NOT NULL,
    made_by       text NOT NULL,
    made_at       timestamptz NOT NULL,
    urn           text,
    submission_id uuid,
    version       integer,
    accepted_at   timestamptz,
    PRIMARY KEY (workspace, id)
);
CREATE INDEX foreign_proposal_of_asset ON foreign_proposal (workspace, urn) WHERE urn IS NOT NULL;
SELECT mintmark_protect('foreign_proposal');

-- What people corrected, for the next document of the same structure. A rule without a pointer leaves its field out.
CREATE TABLE foreign_mapping (
    workspace text NOT NULL,
    name      text NOT NULL,
    shape     text NOT NULL,
    rules     jsonb NOT NULL,
    made_by   text NOT NULL,
    made_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace, name)
);
CREATE INDEX foreign_mapping_of_shape ON foreign_mapping (workspace, shape);
SELECT mintmark_protect('foreign_mapping');
