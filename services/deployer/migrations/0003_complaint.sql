-- Why what is running would not be deployed today: its approval was withdrawn or has expired. It runs on all the same
-- (docs/decisions/lapsed-approvals.md); NULL while nothing is wrong.
ALTER TABLE deployment ADD COLUMN complaint text;
