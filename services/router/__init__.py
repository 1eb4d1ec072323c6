"""Router: model groups, their champion and challengers, and one inference table a group.

Owns: groups with their append-only revisions and settings, the versions that may be served with their signed approvals,
inference tables with their views, archives, erasures and deletions, feedback, their aggregates, ramps, batches,
providers and their sealed keys. Schema `router`.

The control plane (API, handlers, store, worker) decides; the data plane (`gateway/`) is a process of its own that
serves traffic from an in-memory snapshot of those decisions.
"""

OWNS = (
    "served_version",
    "approval_decision",
    "asset_class",
    "cap_counter",
    "model_group",
    "group_revision",
    "group_setting",
    "feedback",
    "comparison_delta",
    "comparison_sum",
    "comparison_shadowed",
    "group_measured",
    "provider",
    "batch_file",
    "batch_job",
    "batch_result",
    "ramp",
    "ramp_entry",
    "spool_position",
    "unplaced_row",
    "group_key",
    "log_archive",
    "erasure",
    "group_deletion",
    "inference_log_<group>",
)
HEARS = ("approval.decided", "classification.changed", "deploy.completed", "deploy.withdrawn", "feedback.received")
SAYS = (
    "budget.exceeded",
    "feedback.received",
    "group.changed",
    "group.measured",
    "group.promoted",
    "group.rolled_back",
    "guardrail.tripped",
    "inference.logged",
    "provider.changed",
)
