"""The data plane: one stable address a model group, every answer with its row, in a process of its own.

A request's life, module by module: `http_server` parses it, `exchange` takes it through its stages, `snapshot` says
which version serves it, `upstream` asks that version's model server, `rows` makes its row, `row_writer` makes the row
durable, and only then does the answer leave. No framework stands on that path, and no task is made on it: the stages
are plain calls and callbacks, because one asyncio task a request costs more than all of them.

Beside the path: `snapshot_source` keeps the snapshot current, `app` wires, starts and drains.
"""
