"""Everything next to a version, read for any number of versions in one round trip."""
