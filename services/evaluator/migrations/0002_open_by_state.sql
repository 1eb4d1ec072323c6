-- A claim looks for what waits, the watch over leases for what runs: each finds its own without stepping over the other.
CREATE INDEX evaluation_waiting ON evaluation (requested_at) WHERE state = 'waiting';
CREATE INDEX evaluation_running ON evaluation (requested_at) WHERE state = 'running';
DROP INDEX evaluation_open;
