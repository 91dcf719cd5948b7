"""The ids of one table whose rows were removed one by one: an incremental checkpoint has them, because an older one may
have the rows. Rows that a cut drops are not among them: the cuts are saved.

They are kept since the last checkpoint that was kept as a whole. How many there may be is bounded; beyond that nothing
is known of the time before, and the next checkpoint has all rows. The engine thread's.
"""

from __future__ import annotations

import numpy as np

from ps.arrays import Ids
from ps.kept import KeptState

MOST_IDS = 1 << 20
"""How many ids are kept at most: 8 MiB."""
MARKS = 16
"""How many checkpoints may be under way, or have failed, since one was kept."""


class Removed:
    """The removals of one table since a checkpoint."""

    def __init__(self, most: int = MOST_IDS) -> None:
        self._most = most
        self._ids_N: Ids = np.empty(0, np.int64)  # more than are in use
        self._n = 0
        self._since: int | None = 0
        """The version from which on they are known; None: they are not."""
        self._marks: dict[int, int] = {}  # how many there were at each cut, by version
        self._last_cut: int | None = 0

    @property
    def since(self) -> int | None:
        """The version of the checkpoint since which all removals are known; None where they were too many."""
        return self._since

    @property
    def marks_tell(self) -> bool:
        """Whether the marks of rows (CHANGED) tell what has changed since the checkpoint that is kept: it was the last
        cut."""
        return self._since is not None and self._since == self._last_cut

    def note(self, ids_N: Ids) -> None:
        """Notes that rows of these ids, if there were any, are gone."""
        if self._since is None and not self._marks:
            return
        n = self._n + len(ids_N)
        if n > self._most:
            self.give_up()
            return
        if n > len(self._ids_N):
            self._ids_N = np.concatenate([self._ids_N[: self._n], np.empty(max(n, 64), np.int64)])
        self._ids_N[self._n : n] = ids_N
        self._n = n

    def mark(self, version: int) -> None:
        """Notes that a checkpoint is taken at this version."""
        self._marks[version], self._last_cut = self._n, version
        while len(self._marks) > MARKS:
            del self._marks[next(iter(self._marks))]

    def kept(self, version: int) -> None:
        """Notes that the checkpoint of this version is kept: what was removed before it need not be known."""
        if version in self._marks:
            gone = self._marks[version]
            self._ids_N, self._n, self._since = self._ids_N[gone : self._n].copy(), self._n - gone, version
            self._marks = {later: at - gone for later, at in self._marks.items() if later > version}

    def give_up(self) -> None:
        """Notes that more has changed than the ids can tell: the next checkpoint has all rows."""
        self._ids_N, self._n, self._since, self._marks = self._ids_N[:0].copy(), 0, None, {}

    def state(self) -> KeptState:
        """See `ps.kept`."""
        return {"ids_N": None if self._since is None else self._ids_N[: self._n], "since": self._since}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        self._since, self._last_cut = state["since"], None
        self._ids_N = np.empty(0, np.int64) if state["ids_N"] is None else state["ids_N"].copy()
        self._n = len(self._ids_N)
