"""Rows on this machine's own disk, from the moment a request is answered until they are in Postgres.

A spool is a folder with one writer for life: a gateway process makes it when it starts, holds the lock on its `lock`
file for as long as it lives, and appends to numbered segments. Nobody appends to it again, so a tail that a crash tore
is only ever cut, never written over. A shipper reads every spool it finds, removes segments that are in Postgres, and
the folder once its writer is dead and nothing is left.

    <folder>/spool/<spool id>/lock
                              00000001.rows, 00000002.rows, …

`format` says what a record is, `writer` is the gateway's side, `reader` the shipper's.
"""
