"""Policy: gates, human decisions and the hash-chained ledger.

Owns: gate rules as versioned data, verdicts, approvals and waivers (signed), dataset approvals, what is protected, the
ledger of every event.
Schema `policy`. Beside the events of HEARS, which it acts upon, its ledger records every event of every topic.
"""

OWNS = ("gate_policy", "gate", "approval", "dataset_approval", "waiver", "protection", "ledger")
HEARS = ("asset.registered", "dataset.registered", "eval.completed", "eval.failed")
SAYS = ("approval.decided", "dataset.approved", "gate.decided", "policy.published", "waiver.signed")
