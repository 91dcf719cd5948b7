"""How stale gradients are: pushes applied between the pull that they were computed from and their own."""

from __future__ import annotations

BOUNDS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the histogram's buckets, in pushes."""


class Staleness:
    """Plain counters; the metrics turn them into a histogram when they are asked."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.total = 0
        self.most = 0

    @staticmethod
    def of(version: int, pulled_version: int) -> int:
        """The staleness of a push that makes `version`; 0 if its pull is not known."""
        return max(0, version - 1 - pulled_version) if pulled_version else 0

    def observe(self, version: int, pulled_version: int) -> int:
        """Counts and returns the staleness of the push that made `version`; 0 if its pull is not known."""
        staleness = self.of(version, pulled_version)
        if pulled_version:
            self.buckets[next((i for i, bound in enumerate(BOUNDS) if staleness <= bound), len(BOUNDS))] += 1
            self.total += staleness
            self.most = max(self.most, staleness)
        return staleness

    def report(self) -> dict[str, int]:
        """Over the pushes whose pull is known: how many, the sum of their staleness and the most of any."""
        return {"pushes": sum(self.buckets), "total": self.total, "most": self.most}
