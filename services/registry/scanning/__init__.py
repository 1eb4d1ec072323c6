"""Looking for code in what may hold pickles: scanners in a process of their own, and what they said."""

from services.registry.scanning.statement import Scan, Statement

__all__ = ["Scan", "Statement"]
