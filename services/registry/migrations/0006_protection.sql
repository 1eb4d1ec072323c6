-- Which aliases and stages of a workspace move only to a version that was let through, as policy said last.
CREATE TABLE protection (
    workspace text PRIMARY KEY,
    number    integer NOT NULL,
    document  jsonb NOT NULL
);
SELECT mintmark_protect('protection');
