"""What is refused about inference tables: filters, erasures, archives, deletions."""

from __future__ import annotations

from shared.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge


class FilterRefused(Invalid):
    """A filter is a column, an operator and a value: status>=500, features.AGEP>40, error_code is null."""

    code = "filter-refused"


class DeletionRefused(Conflict):
    """The group's deletion is not in a state for that."""

    code = "deletion-refused"


class SecondPersonNeeded(Forbidden):
    """Rows that no archive keeps go only when a second person agrees: who asked cannot agree."""

    code = "second-person-needed"


class NoDeletion(NotFound):
    """Nobody has asked that this group be deleted."""

    code = "no-deletion"


class UnknownArchive(NotFound):
    """There is no such archive in your workspace, or it was replaced when rows were erased from it."""

    code = "unknown-archive"


class UnknownErasure(NotFound):
    """There is no such erasure in your workspace."""

    code = "unknown-erasure"


class ErasureRefused(Invalid):
    """An erasure names a subject, or filters, or both; and a reason."""

    code = "erasure-refused"


class TooMuchToExport(TooLarge):
    """An export has at most 1,000,000 rows; narrow it with since, until and where."""

    code = "too-much-to-export"


class UnitNotKept(Conflict):
    """The row does not keep the unit that chose its version, by a field rule or for want of consent."""

    code = "unit-not-kept"


class GroupRetired(Conflict):
    """The group is to be deleted, so nothing about it changes any more; keep it first."""

    code = "group-retired"

    def __init__(self, group: str) -> None:
        super().__init__(
            f"The group {group!r} is to be deleted, so nothing about it changes any more; POST …/groups/{group}:keep "
            "takes that back."
        )
