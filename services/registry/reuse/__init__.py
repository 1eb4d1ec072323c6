"""Reuse before build: what a team means to build, what is there already, what became of it, and who uses what."""
