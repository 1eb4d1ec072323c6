"""The deployer: takes an approved version, builds a signed bundle of it and puts it onto a target that serves it.

Owns: deployments and their steps. Schema `deployer`. Keeps read models of versions, gates, approvals and traffic.
"""

OWNS = ("deployment", "step")
HEARS = ("approval.decided", "asset.registered", "deploy.requested", "gate.decided", "group.changed")
SAYS = ("deploy.completed", "deploy.failed", "deploy.progressed", "deploy.withdrawn")
