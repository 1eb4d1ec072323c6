"""OpenLineage, in and out: others' events become nodes and edges beside ours, and ours are told as run events.

In: `POST /registry/api/v1/lineage` (and `/api/v1/lineage`) takes run, dataset and job events as they come, in any order
and more than once. Every facet is kept, known here or not. Out: whatever is linked here is told, in the order in which
it was committed, to an OpenLineage server (worker.py) or to whoever asks (`GET /registry/v1/lineage/openlineage`).
"""
