"""How rows are to be seen, which may be other than their bytes are by now. A table's cold tier says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ps.storage.tier import Records


class Sight(Protocol):
    """The sight of one table's rows."""

    def as_seen(self, found: Iterable[Records]) -> list[Records]:
        """Returns rows that were copied from RAM or read from disk as they are to be seen; one element for each length
        of row."""

    def moved(self) -> None:
        """Notes that rows have gone to other slots."""
