-- Prompts, their immutable versions, and labels as logs.

-- Locked while a version is numbered or a label moves, so that numbers have no gaps and moves one order.
CREATE TABLE prompt (
    workspace    text NOT NULL,
    name         text NOT NULL,
    last_version integer NOT NULL DEFAULT 0,
    PRIMARY KEY (workspace, name)
);
SELECT mintmark_protect('prompt');

CREATE TABLE prompt_version (
    workspace      text NOT NULL,
    name           text NOT NULL,
    version        integer NOT NULL,
    digest         text NOT NULL,
    content        jsonb NOT NULL,
    commit_message text NOT NULL,
    author         text NOT NULL,
    submission_id  uuid NOT NULL,
    state          text NOT NULL CHECK (state IN ('submitted', 'registered', 'refused')),
    asset_version  integer,
    asset_digest   text,
    code           text,
    reason         text,
    published_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace, name, version),
    UNIQUE (workspace, submission_id)
);
SELECT mintmark_protect('prompt_version');

CREATE TABLE label_move (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace text NOT NULL,
    name      text NOT NULL,
    label     text NOT NULL,
    before    integer,
    after     integer,
    reason    text NOT NULL,
    actor     text NOT NULL,
    at        timestamptz NOT NULL
);
CREATE INDEX label_move_of ON label_move (workspace, name, label, id DESC);
SELECT mintmark_protect('label_move');
