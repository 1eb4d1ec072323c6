"""What tests of all services use: a real broker and database, an installation of one's own, builders of events."""
