"""Staleness of gradients: how many pushes were applied between the pull that they were computed from and their own
push."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from ps.kept import KeptState

BOUNDS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the histogram's buckets, in pushes."""


KEPT = 4096
"""The versions of so many writes that are no pushes are remembered, and up to twice as many."""


class Staleness:
    """Counts pushes between a pull and its push. Versions count all writes, so it remembers which were no pushes.

    Plain counters; the metrics turn them into a histogram when they are asked.
    """

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.total = 0
        self.most = 0
        self._others: list[int] = []

    def of(self, version: int, pulled_version: int) -> int:
        """Returns the staleness of a push that makes `version`; 0 if its pull is not known. Of more than KEPT other
        writes between the two, the oldest may count as pushes."""
        if not pulled_version:
            return 0
        others = len(self._others) - bisect_right(self._others, pulled_version)
        return max(0, version - 1 - pulled_version - others)

    def observe(self, staleness: int) -> None:
        """Counts a push whose pull is known."""
        self.buckets[next((i for i, bound in enumerate(BOUNDS) if staleness <= bound), len(BOUNDS))] += 1
        self.total += staleness
        self.most = max(self.most, staleness)

    def other(self, version: int) -> None:
        """Notes that the write which made `version` was no push."""
        self._others.append(version)
        if len(self._others) > 2 * KEPT:
            del self._others[:KEPT]

    def report(self) -> dict[str, int]:
        """Returns, over the pushes whose pull is known: how many there were, the sum of their staleness and the
        largest."""
        return {"pushes": sum(self.buckets), "total": self.total, "most": self.most}

    def state(self) -> KeptState:
        """See `ps.kept`."""
        buckets, others = np.array(self.buckets, np.int64), np.array(self._others, np.int64)
        return {"buckets": buckets, "total": self.total, "most": self.most, "others": others}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        self.buckets, self._others = state["buckets"].tolist(), state["others"].tolist()
        self.total, self.most = state["total"], state["most"]
