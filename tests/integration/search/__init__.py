"""Search, on the index itself and through the registry."""
