"""Prepared steps: ids resolved to slots ahead of the pull and the push that will use them.

Slots never move, but a row may be removed between prepare and push and its slot given to another id. The table's
`layout_epoch` tells: when it has changed, the ids are looked up again. Ids that had no row are looked up again anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ps.errors import StepNotFound
from ps.shard.requests import StepRef, TableIds
from ps.storage.hot import Slots
from ps.table import Table


@dataclass
class Resolved:
    """Ids of one table with the slots found for them."""

    table: Table
    ids: TableIds
    slots_N: Slots
    layout_epoch: int

    @classmethod
    def of(cls, table: Table, ids: TableIds) -> Resolved:
        """Looks the ids up."""
        return cls(table, ids, table.find(ids.ids_N), table.layout_epoch)

    def refresh(self) -> None:
        """Makes the slots true now."""
        if self.layout_epoch != self.table.layout_epoch:
            self.slots_N = self.table.find(self.ids.ids_N)
            self.layout_epoch = self.table.layout_epoch
            return
        missing_N = np.flatnonzero(self.slots_N < 0)
        if len(missing_N):
            self.slots_N[missing_N] = self.table.find(self.ids.ids_N[missing_N])


@dataclass(frozen=True)
class _Step:
    tables: list[Resolved]
    expires_at: float


class Steps:
    """The prepared steps of a shard, oldest first, bounded in time and number."""

    def __init__(self, ttl_s: float, max_steps: int) -> None:
        self._ttl_s = ttl_s
        self._max_steps = max_steps
        self._steps: dict[StepRef, _Step] = {}
        self.prepared = 0
        self.expired = 0

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, ref: StepRef, tables: list[Resolved], now: float) -> None:
        """Holds a step until it is used up or its lease ends."""
        self._steps.pop(ref, None)
        self._steps[ref] = _Step(tables, now + self._ttl_s)
        self.prepared += 1
        self._expire(now)

    def get(self, ref: StepRef, now: float) -> list[Resolved]:
        """The step's ids with true slots; raises StepNotFound."""
        self._expire(now)
        step = self._steps.get(ref)
        if step is None:
            raise StepNotFound(
                f"step {ref.step} of worker {ref.worker_id:#x} is not prepared here: it expired after "
                f"{self._ttl_s:g} s, was pushed already, or its prepare was lost (send the ids instead)"
            )
        for resolved in step.tables:
            resolved.refresh()
        return step.tables

    def finish(self, ref: StepRef) -> None:
        """The step was pushed: forget it."""
        self._steps.pop(ref, None)

    def forget_table(self, name: str) -> None:
        """The table was dropped: steps that name it are gone."""
        stale = [ref for ref, step in self._steps.items() if any(r.ids.table == name for r in step.tables)]
        for ref in stale:
            del self._steps[ref]

    @property
    def nbytes(self) -> int:
        """Bytes of ids, counts and slots held."""
        return sum(
            r.ids.ids_N.nbytes + r.slots_N.nbytes + (0 if r.ids.counts_N is None else r.ids.counts_N.nbytes)
            for step in self._steps.values()
            for r in step.tables
        )

    def _expire(self, now: float) -> None:
        while self._steps:
            ref = next(iter(self._steps))
            if len(self._steps) <= self._max_steps and self._steps[ref].expires_at > now:
                return
            del self._steps[ref]
            self.expired += 1
