"""Router: model groups, their champion and challengers, and one inference table a group.

Owns: groups and their append-only revisions, the versions that may be served with their signed approvals,
inference tables, feedback. Schema `router`.

Hears: `deploy.completed`, `approval.decided`, `classification.changed`, `drift.detected`, `prompt.label_moved`.
Says: `group.changed`, `group.promoted`, `group.rolled_back`, `inference.logged`, `feedback.received`.

The control plane (API, handlers, store) decides; the data plane (`gateway/`) is a process of its own that serves
traffic from an in-memory snapshot of those decisions.
"""
