-- What was told of each group's figures (group.measured). `moved` counts folds of its sums, `told` is how many of them the
-- last word knew of, `until` when that was. A group of which nothing is to be told costs nothing: the index leaves it out.
CREATE TABLE group_measured (
    workspace  text NOT NULL,
    group_name text PRIMARY KEY REFERENCES model_group (name),
    moved      bigint NOT NULL,
    told       bigint NOT NULL DEFAULT 0,
    until      timestamptz
) WITH (fillfactor = 70);
CREATE INDEX group_measured_due ON group_measured (until) WHERE moved > told;
SELECT mintmark_protect('group_measured');

-- Groups that have sums already are told of once.
SELECT set_config('mintmark.workspace', '*', true);
INSERT INTO group_measured (workspace, group_name, moved)
SELECT DISTINCT workspace, group_name, 1 FROM comparison_sum WHERE grain = 0;
SELECT set_config('mintmark.workspace', '', true);
