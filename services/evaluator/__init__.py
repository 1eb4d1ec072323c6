"""The evaluator measures asset versions on golden sets: every figure with its interval, every error as an error.

Owns: evaluations, their shards, their reports. Schema `evaluator`.
"""

OWNS = ("dataset", "asset", "evaluation", "shard")
HEARS = ("asset.registered", "dataset.approved", "dataset.registered", "eval.requested")
SAYS = ("eval.completed", "eval.failed")
