"""Prepared steps: ids resolved to slots ahead of the pull and the push that will use them.

Rows that a step holds stay in RAM, also those that come there later. But a row may be removed between prepare and push
and its slot given to another id, or rows may move to other slots. Then the table's `layout_epoch` has changed, and the
ids are looked up again when the step is used. Ids without a row in RAM are looked up each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ps.arrays import Flags, Ids, Rows, Slots
from ps.errors import InvalidArgument, StepNotFound
from ps.shard.requests import StepRef, TableIds
from ps.storage.ram.awaited import NBYTES as AWAITED_BYTES
from ps.storage.residence.fetch import Fetch
from ps.storage.tier import Records
from ps.table.table import Table


class Resolved:
    """Ids of one table and, once looked up, their slots. While it is held, the rows found stay in RAM."""

    def __init__(self, table: Table, ids: TableIds) -> None:
        self.table = table
        self.ids = ids
        self.beside: Beside | None = None
        """Rows that are read from disk for this pull alone."""
        self._slots_N: Slots | None = None
        self._layout_epoch = 0
        self._holds = 0

    @property
    def nbytes(self) -> int:
        """Bytes of ids, counts, bags and slots, and of what waits for rows."""
        held = (self.ids.ids_N, self.ids.counts_N, self.ids.bags, self._slots_N)
        nbytes = sum(part.nbytes for part in held if part is not None) + len(self.ids.packed or b"")
        if self._slots_N is not None and self.table.has_disk:
            nbytes += AWAITED_BYTES * int(np.count_nonzero(self._slots_N < 0))
        return nbytes

    def slots(self) -> Slots:
        """Returns the slot of each id as of now, -1 where there is no row in RAM."""
        if self._slots_N is None or self._layout_epoch != self.table.ram.layout_epoch:
            self._slots_N = self.table.find(self.ids.ids_N)
            self._layout_epoch = self.table.ram.layout_epoch
        else:
            missing_N = np.flatnonzero(self._slots_N < 0)
            if len(missing_N) == len(self._slots_N):  # all of them, often: no copies of so many
                self._slots_N = self.table.find(self.ids.ids_N)
            elif len(missing_N):
                self._slots_N[missing_N] = self.table.find(self.ids.ids_N[missing_N])
        return self._slots_N

    def hold(self) -> None:
        """Keeps the rows in RAM that are there or come there, until `let_go` has been called as many times."""
        if not self._holds:
            self._slots_N = None
            slots_N = self.slots()
            if self.table.has_disk:  # else all rows stay in RAM anyway
                self.table.ram.hold(self.ids.ids_N, slots_N)
        self._holds += 1

    def let_go(self) -> None:
        """Releases the rows, so that they may move again: slots found so far are no longer valid."""
        self._holds -= 1
        if not self._holds:
            if self.table.has_disk and not self.table.closed:
                self.table.ram.let_go(self.ids.ids_N, self.slots())
            self._slots_N = None

    def create_admitted(self, rows_R: Slots | None = None) -> Slots:
        """Creates a row for every id that may have one, or for those in these positions; returns the positions that had
        none."""
        return self.table.reserve.create_admitted(self.ids.ids_N, self.slots(), self.ids.counts_N, rows_R)

    def fetch(self) -> Fetch | None:
        """Begins to read the rows that are on disk; None if there are none."""
        if not self.table.store.has_below:
            return None
        return self.table.store.fetch(self.ids.ids_N[self.slots() < 0])

    def read_beside(self, records: Sequence[Records]) -> None:
        """Takes rows from disk for this pull alone."""
        if any(map(len, records)):
            self.beside = Beside(records, self.table)

    def read(self, start: int, end: int, out_ND: Rows) -> None:
        """Writes the values of ids [start, end). If no id was looked up before, it looks up just these."""
        ids_N = self.ids.ids_N[start:end]
        slots_N = self.table.find(ids_N) if self._slots_N is None else self._slots_N[start:end]
        self.table.lookup(ids_N, slots_N, out_ND)
        if self.beside is not None:
            self.beside.read(ids_N, slots_N, out_ND)

    def exists(self) -> Flags:
        """Returns which ids have a row, in RAM or among those read from disk for this pull."""
        found_N = self.slots() >= 0
        return found_N if self.beside is None else found_N | self.beside.has(self.ids.ids_N)

    def important(self, share: float) -> Flags:
        """Returns which ids have a row among this share of the table's most important ones; rows on disk are counted as
        those in RAM."""
        ranking, ram = self.table.ranking, self.table.ram
        rank = ranking.below_most(round(share * len(self.table)))
        important_N = ranking.outrank(ram.statistics_S2, self.slots(), rank)
        return important_N if self.beside is None else important_N | self.beside.outrank(self.ids.ids_N, rank)


class Beside:
    """Rows of one table that were read from disk for one pull and stay there: a pull changes nothing."""

    def __init__(self, records: Sequence[Records], table: Table) -> None:
        ids_N = np.concatenate([part.ids_N for part in records])
        values_ND = np.concatenate([table.values(part) for part in records])
        ranks_N = np.concatenate([table.ranking.ranks(part.statistics_N2) for part in records])
        order_N = np.argsort(ids_N)
        self._ids_N, self._values_ND, self._ranks_N = ids_N[order_N], values_ND[order_N], ranks_N[order_N]

    def read(self, ids_N: Ids, slots_N: Slots, out_ND: Rows) -> None:
        """Writes the values of the ids that have no slot and are here."""
        missing_N = np.flatnonzero(slots_N < 0)
        if not len(missing_N):
            return
        places_N = np.minimum(np.searchsorted(self._ids_N, ids_N[missing_N]), len(self._ids_N) - 1)
        here_N = self._ids_N[places_N] == ids_N[missing_N]
        out_ND[missing_N[here_N]] = self._values_ND[places_N[here_N]]

    def has(self, ids_N: Ids) -> Flags:
        """Returns which ids are here."""
        return np.isin(ids_N, self._ids_N)

    def outrank(self, ids_N: Ids, rank: int) -> Flags:
        """Returns which ids are here and have a higher rank."""
        return np.isin(ids_N, self._ids_N[self._ranks_N > rank])


@dataclass(frozen=True)
class _Step:
    tables: list[Resolved]
    ids_digest: int
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
        """Bytes of ids, counts, bags and slots held."""
        self.rows_bytes = 0
        """Bytes of the rows that steps name: so many may be held in RAM."""
        self._rows: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, ref: StepRef, tables: list[Resolved], now: float) -> None:
        """Holds a step until it is used up or its lease ends."""
        self.finish(ref)
        step = _Step(tables, ref.ids_digest, now + self._ttl_s, sum(resolved.nbytes for resolved in tables))
        self._steps[ref] = step
        self._count(step, 1)
        self.prepared += 1
        self.expire(now)

    def get(self, ref: StepRef, now: float) -> list[Resolved]:
        """Returns the step's ids; raises StepNotFound, and InvalidArgument if other ids were prepared than the caller
        means."""
        self.expire(now)
        step = self._steps.get(ref)
        if step is None:
            raise StepNotFound(
                f"step {ref.step} of worker {ref.worker_id:#x} is not prepared here under routing table "
                f"{ref.routing_epoch}: it expired after {self._ttl_s:g} s, was pushed already, or its prepare was lost "
                "(send the ids instead)"
            )
        if ref.ids_digest and step.ids_digest and ref.ids_digest != step.ids_digest:
            raise InvalidArgument(
                f"step {ref.step} of worker {ref.worker_id:#x} was prepared with other ids than this push means: their "
                f"digest is {step.ids_digest:#x}, the push says {ref.ids_digest:#x}; nothing was applied"
            )
        return step.tables

    def finish(self, ref: StepRef) -> None:
        """Forgets a step that was pushed or will not be, if it is held."""
        step = self._steps.pop(ref, None)
        if step is not None:
            self._count(step, -1)
            for resolved in step.tables:
                resolved.let_go()

    def tables(self) -> list[Table]:
        """Returns the tables that steps name."""
        found = {
            resolved.table.config.name: resolved.table for step in self._steps.values() for resolved in step.tables
        }
        return list(found.values())

    def shed_bytes(self, most: int) -> None:
        """Forgets the oldest steps until the rows that they name take at most so many bytes."""
        while self.rows_bytes > most and self._steps:
            self.finish(next(iter(self._steps)))
            self.expired += 1

    def shed(self, table: str, most: int) -> None:
        """Forgets the oldest steps that name a table until they name at most so many of its rows."""
        for ref in list(self._steps):
            if self._rows[table] <= most:
                return
            if any(resolved.ids.table == table for resolved in self._steps[ref].tables):
                self.finish(ref)
                self.expired += 1

    def forget_table(self, name: str) -> None:
        """Forgets the steps that name a table which was dropped."""
        stale = [ref for ref, step in self._steps.items() if any(r.ids.table == name for r in step.tables)]
        for ref in stale:
            self.finish(ref)

    def _count(self, step: _Step, change: int) -> None:
        self.nbytes += change * step.nbytes
        for resolved in step.tables:
            rows = change * len(resolved.ids.ids_N)
            self._rows[resolved.ids.table] += rows
            self.rows_bytes += rows * resolved.table.room.bytes_each

    def expire(self, now: float) -> None:
        """Forgets steps whose lease has ended, and the oldest if there are too many."""
        while self._steps:
            ref = next(iter(self._steps))
            fits = len(self._steps) <= self._max_steps and self.nbytes <= self._max_bytes
            if fits and self._steps[ref].expires_at > now:
                return
            self.finish(ref)
            self.expired += 1
