"""Prompts: immutable numbered versions with typed variables, and labels that point at them.

Owns: prompts, their versions, labels as logs. Schema `prompts`. A published version is submitted to the registry, where
it takes the same road as every asset.
"""

OWNS = ("prompt", "prompt_version", "label_move")
HEARS = ("asset.refused", "asset.registered")
SAYS = ("asset.submitted", "prompt.label_moved", "prompt.published")
