"""The evaluator measures asset versions on golden sets: every figure with its interval, every error as an error.

Owns: evaluations, their shards, their reports.
"""
