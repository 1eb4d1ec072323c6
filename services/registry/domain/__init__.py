"""What the registry knows by itself: assets and their content, and what each event says of lineage. Pure."""
