"""Prompts are measured by what a model makes of them: rendered with each golden row, asked at the gateway, compared.

begun = measuring.begin(claimed, files)            # how many rows there are; the worker cuts them into shards
partial = measuring.score(claimed, files)          # rendered here, asked there, graded here
finished = measuring.finish(claimed, partials)     # the report

`rendering`, `golden`, `grading` and `report` are for the scoring processes: a template is a stranger's program, and
expected answers never leave them. `asking` is the service's: it has the gateway's key, and they do not.
"""
