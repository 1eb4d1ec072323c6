"""Postgres as the services use it: transactions that carry workspace and outbox, migrations, named queries."""

from shared.db.database import Database, Transaction

__all__ = ["Database", "Transaction"]
