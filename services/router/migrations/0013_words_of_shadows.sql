-- A word judges its request's row and the rows of its shadows, and these may come after it was counted.

-- The rows that a counted word was added for, so that it is taken back from these and no others; NULL of words that
-- counted before: all the rows there were.
ALTER TABLE feedback ADD COLUMN counted_rows uuid[];

-- Requests whose shadows' rows came, a batch a row, until words on them that counted before count for these rows too.
-- Only ever inserted and taken away, like comparison_delta, so that whoever records rows never waits for another.
CREATE TABLE comparison_shadowed (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace   text NOT NULL,
    group_name  text NOT NULL REFERENCES model_group (name),
    request_ids uuid[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
SELECT mintmark_protect('comparison_shadowed');
