-- Retention asks whether a run's file or a read document rests on the bytes of a dataset.
CREATE INDEX tracked_file_of_bytes ON tracked_file (workspace, digest);
CREATE INDEX foreign_proposal_of_bytes ON foreign_proposal (workspace, document);
