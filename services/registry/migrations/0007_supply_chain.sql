-- What scanners said of bytes. By the bytes, since what they hold does not change with the version that rests on them.
CREATE TABLE scan (
    workspace  text NOT NULL,
    digest     text NOT NULL,
    format     text NOT NULL,
    statements jsonb NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (workspace, digest)
);
SELECT mintmark_protect('scan');
