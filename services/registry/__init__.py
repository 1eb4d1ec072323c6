"""The registry: every AI asset of a workspace, its immutable versions, where they point, and what hangs on them.

Owns: assets, versions, artefacts held, submissions, aliases and stages as logs, lineage. Schema `registry`.
"""

OWNS = (
    "asset",
    "version",
    "term",
    "submission",
    "vouched",
    "artefact",
    "alias_move",
    "stage_move",
    "edge",
    "finding",
    "model_group",
)
HEARS = ("asset.submitted",)
SAYS = ("asset.changed", "asset.refused", "asset.registered", "dataset.registered")
