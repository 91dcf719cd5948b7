"""What the rows of `crash` must be, by what its trainers were told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import ps
from benchmarks.durability.pushes import ACKNOWLEDGED, HALF, MARKED, PLAIN, SENT, TRAINERS, Progresses, Pushes
from ps.arrays import Flags, Ids

Sums = npt.NDArray[np.int64]


@dataclass
class Found:
    """What the checks of a run have found."""

    checks: int = 0
    lost: int = 0
    """Acknowledged pushes that a shard has not, and counts of rows that are too low."""
    doubled: int = 0
    """Counts of rows that are too high."""
    prefixes: int = 0
    """Checks at which each shard had a prefix of each trainer's pushes, and nothing else."""


class Oracle:
    """Counts what was acknowledged, and compares it with what the service has. Nobody pushes during a check."""

    def __init__(self, pushes: Pushes, told: Progresses) -> None:
        self._pushes, self._told = pushes, told
        self._all_N: Ids = np.arange(pushes.rows)
        self._shards_N = pushes.shard_of(self._all_N)
        self._counts = {table: np.zeros((pushes.rows, TRAINERS), np.int64) for table in (PLAIN, HALF)}
        self._counted = np.zeros(told.shape[:2], np.int64)
        self.found = Found()

    def check(self, client: ps.Client, lives: list[int]) -> None:
        """Reads all rows, and compares. `lives`: the present life of each trainer."""
        before, found = (self.found.lost, self.found.doubled), self.found
        expected = {table: counts.copy() for table, counts in self._up_to_acknowledged(lives).items()}
        fits = True
        for trainer, life in self._begun(lives):
            sent, acknowledged = (int(self._told[trainer, life, column]) for column in (SENT, ACKNOWLEDGED))
            has_S = self._has(client, trainer, life, sent)
            found.lost += int(np.maximum(acknowledged - has_S, 0).sum())
            fits &= bool((has_S <= sent).all())
            if sent > acknowledged:
                self._add(expected, trainer, life, sent, has_S[self._shards_N] >= sent)
        for table, counts in expected.items():
            rows_ND = client.pull(table, self._all_N)
            is_N4 = rows_ND.reshape(len(rows_ND), -1, TRAINERS)
            found.lost += int((is_N4.min(axis=1) < counts).sum())
            found.doubled += int((is_N4.max(axis=1) > counts).sum())
        found.checks += 1
        found.prefixes += fits and (found.lost, found.doubled) == before

    def _begun(self, lives: list[int]) -> list[tuple[int, int]]:
        return [(trainer, life) for trainer, last in enumerate(lives) for life in range(last + 1)]

    def _has(self, client: ps.Client, trainer: int, life: int, sent: int) -> Sums:
        """Returns how many pushes of a life each shard has [shards]."""
        if sent == 0:
            return np.zeros(self._pushes.shards, np.int64)
        ids = [self._pushes.markers(trainer, life, thousand) for thousand in range((sent - 1) // MARKED + 1)]
        rows_ND = client.pull(PLAIN, np.concatenate(ids))
        counts_N: Sums = rows_ND[:, trainer].astype(np.int64)
        has_S: Sums = counts_N.reshape(len(ids), -1).sum(axis=0)
        return has_S

    def _up_to_acknowledged(self, lives: list[int]) -> dict[str, Sums]:
        for trainer, life in self._begun(lives):
            acknowledged = int(self._told[trainer, life, ACKNOWLEDGED])
            for number in range(int(self._counted[trainer, life]) + 1, acknowledged + 1):
                self._add(self._counts, trainer, life, number)
            self._counted[trainer, life] = acknowledged
        return self._counts

    def _add(
        self,
        counts: dict[str, Sums],
        trainer: int,
        life: int,
        number: int,
        where_N: Flags | None = None,
    ) -> None:
        """Counts a push, on the rows that have it."""
        for table, ids_N in self._pushes.ids(trainer, life, number).items():
            counts[table][ids_N if where_N is None else ids_N[where_N[ids_N]], trainer] += 1
