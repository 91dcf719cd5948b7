"""Prepared steps: ids resolved to slots ahead of the pull and the push that will use them.

Slots never move, but a row may be removed between prepare and push and its slot given to another id. The table's
`layout_epoch` tells: when it has changed, the ids are looked up again. Ids that had no row are looked up again anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ps.errors import StepNotFound
from ps.shard.requests import Rows, StepRef, TableIds, Target
from ps.storage.hot import Slots
from ps.table import Table


class Resolved:
    """Ids of one table and, once looked up, their slots."""

    def __init__(self, table: Table, ids: TableIds) -> None:
        self.table = table
        self.ids = ids
        self._slots_N: Slots | None = None
        self._layout_epoch = 0

    @property
    def nbytes(self) -> int:
        """Bytes of ids, counts and slots."""
        held = (self.ids.ids_N, self.ids.counts_N, self._slots_N)
        return sum(array.nbytes for array in held if array is not None)

    def slots(self) -> Slots:
        """The slot of each id as of now, -1 where there is no row."""
        if self._slots_N is None or self._layout_epoch != self.table.layout_epoch:
            self._slots_N = self.table.find(self.ids.ids_N)
            self._layout_epoch = self.table.layout_epoch
        else:
            missing_N = np.flatnonzero(self._slots_N < 0)
            if len(missing_N):
                self._slots_N[missing_N] = self.table.find(self.ids.ids_N[missing_N])
        return self._slots_N

    def read(self, start: int, end: int, out_ND: Rows) -> None:
        """Values of ids [start, end). Looks up just these if none was looked up before."""
        ids_N = self.ids.ids_N[start:end]
        slots_N = self.table.find(ids_N) if self._slots_N is None else self._slots_N[start:end]
        self.table.lookup(ids_N, slots_N, out_ND)


@dataclass
class LookAhead:
    """What a push is about, and what is known of it before its gradients are there."""

    target: Target
    tables: list[Resolved] = field(default_factory=list)
    """Filled on the engine thread; empty if it has not run, or failed: then the push finds out itself."""

    def is_valid(self, tables: Mapping[str, Table]) -> bool:
        """Whether the tables looked up are there still."""
        return bool(self.tables) and all(tables.get(r.ids.table) is r.table for r in self.tables)


@dataclass(frozen=True)
class _Step:
    tables: list[Resolved]
    expires_at: float
    nbytes: int


class Steps:
    """The prepared steps of a shard, oldest first, bounded in time, number and bytes."""

    def __init__(self, ttl_s: float, max_steps: int, max_bytes: int) -> None:
        self._ttl_s = ttl_s
        self._max_steps = max_steps
        self._max_bytes = max_bytes
        self._steps: dict[StepRef, _Step] = {}
        self.prepared = 0
        self.expired = 0
        self.nbytes = 0
        """Bytes of ids, counts and slots held."""

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, ref: StepRef, tables: list[Resolved], now: float) -> None:
        """Holds a step until it is used up or its lease ends."""
        self.finish(ref)
        step = _Step(tables, now + self._ttl_s, sum(resolved.nbytes for resolved in tables))
        self._steps[ref] = step
        self.nbytes += step.nbytes
        self.prepared += 1
        self._expire(now)

    def get(self, ref: StepRef, now: float) -> list[Resolved]:
        """The step's ids; raises StepNotFound."""
        self._expire(now)
        step = self._steps.get(ref)
        if step is None:
            raise StepNotFound(
                f"step {ref.step} of worker {ref.worker_id:#x} is not prepared here under routing table "
                f"{ref.routing_epoch}: it expired after {self._ttl_s:g} s, was pushed already, or its prepare was lost "
                "(send the ids instead)"
            )
        return step.tables

    def finish(self, ref: StepRef) -> None:
        """The step was pushed: forget it."""
        step = self._steps.pop(ref, None)
        if step is not None:
            self.nbytes -= step.nbytes

    def forget_table(self, name: str) -> None:
        """The table was dropped: steps that name it are gone."""
        stale = [ref for ref, step in self._steps.items() if any(r.ids.table == name for r in step.tables)]
        for ref in stale:
            self.finish(ref)

    def _expire(self, now: float) -> None:
        while self._steps:
            ref = next(iter(self._steps))
            fits = len(self._steps) <= self._max_steps and self.nbytes <= self._max_bytes
            if fits and self._steps[ref].expires_at > now:
                return
            self.finish(ref)
            self.expired += 1
