"""The gateway against a real Postgres and a model server that behaves, stalls, cuts and lies."""
