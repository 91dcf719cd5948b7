"""The door to chance: identities that nobody else has, and delays that differ from everybody else's.

Whoever draws takes an `Entropy` as an argument. Any `random.Random` is one, so a test or the simulation gives
`random.Random(seed)`, and then draws the same again.
"""

from __future__ import annotations

import random
from typing import Protocol


class Entropy(Protocol):
    """A source of random numbers. Threads: any."""

    def getrandbits(self, k: int, /) -> int:
        """Returns a number of k random bits: an identity, a secret."""

    def random(self) -> float:
        """Returns a number in [0, 1): a share of a delay."""


SYSTEM_ENTROPY = random.SystemRandom()
"""The operating system's. It has no seed: trainers all seed Python's own source with the same number, and that is
theirs; and a forked child draws other numbers than its parent."""
