-- What answers where a prompt is measured: a group of the gateway. Evaluations that have one are claimed by lanes of their
-- own, since they wait for a network and would keep models from being scored.
ALTER TABLE evaluation ADD COLUMN model text;
