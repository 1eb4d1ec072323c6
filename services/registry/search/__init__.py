"""Search over the catalog: what versions are found by, the index of it, and how a question is answered from it."""
