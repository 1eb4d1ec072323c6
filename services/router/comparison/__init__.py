"""A group's versions compared as traffic comes: mergeable aggregates, always-valid differences, one verdict.

Rows become aggregates in the transaction that writes them (`ledger.record`), labels when their row is there
(`ledger.join`); every view reads aggregates only, so that its cost does not depend on the number of rows.
"""
