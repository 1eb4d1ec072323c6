-- How often an OpenLineage server refused the next event: apart from how often it was asked in vain, since only what is
-- refused again and again is left out.
ALTER TABLE openlineage_cursor ADD COLUMN refusals integer NOT NULL DEFAULT 0;
