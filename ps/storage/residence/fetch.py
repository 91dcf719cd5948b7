"""Rows on their way up from the tier below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ps.arrays import Ids
from ps.kernels.rows.records import HEADER_BYTES
from ps.storage.budget.aside import READ_COPIES
from ps.storage.budget.part import Part
from ps.storage.residence.below import Below
from ps.storage.tier import LowerTier, Records


@dataclass
class Fetch:
    """Rows on their way up, for a step or for one pull."""

    tier: LowerTier
    ids_N: Ids
    """Not in RAM, and perhaps below."""
    number: int
    """Fetches are numbered as they begin."""
    removals: int
    """How many removals there had been when it began."""
    nbytes: int
    """What reading them takes."""
    found: list[Records] = field(default_factory=list)

    def read(self, check: Callable[[], None] = lambda: None) -> None:
        """Reads the tier, for as long as `check` does not raise. Any thread."""
        self.found = self.tier.read(self.ids_N, check)


class Fetches:
    """The fetches of one table, of which some are open. The engine thread's."""

    def __init__(self, below: Below, bodies: Part) -> None:
        """`bodies`: what reading takes is taken from."""
        self._below, self._bodies = below, bodies
        self._open: set[int] = set()
        self.next = 0
        """The number of the next one."""

    @property
    def oldest_open(self) -> int:
        """No fetch of a lower number is open."""
        return min(self._open, default=self.next)

    def begin(self, ids_N: Ids, removals: int, row_bytes: int) -> Fetch | None:
        """Returns a fetch of those of the ids that may be below, None if there are none. Raises ResourceExhausted."""
        if not len(self._below) or not len(ids_N):
            return None
        wanted_N = ids_N[self._below.may_have(ids_N)]
        if not len(wanted_N):
            return None
        nbytes = len(wanted_N) * READ_COPIES * (row_bytes + HEADER_BYTES)
        self._bodies.hold(nbytes)
        fetch = Fetch(self._below.tier, wanted_N, self.next, removals, nbytes)
        self.next += 1
        self._open.add(fetch.number)
        return fetch

    def end(self, fetch: Fetch) -> None:
        """Closes a fetch, and gives back what it has taken."""
        self._bodies.give(fetch.nbytes)
        self._open.discard(fetch.number)
