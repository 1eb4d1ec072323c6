"""The catalog as a graph of types: assets, versions and what hangs on them, asked for in one query."""
