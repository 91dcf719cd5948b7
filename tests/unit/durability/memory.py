"""A saved shard in memory: what files would have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

import ps
from ps.config import PARTITIONS
from ps.durability.state import checkpoint, restore, taking
from ps.kept import KeptState
from ps.kernels.ranking import score
from ps.runtime.places import ENGINE, Place
from ps.shard import Shard, cut
from ps.shard.cut import Since
from ps.shard.state import state_of
from ps.storage.tier import Records
from ps.table.table import Table
from tests.unit.shard.histories import TIMING

OWN = re.compile(r"disk$|tables\.\d+\.(below|removed)\.")
"""State that follows from where rows are, and from the checkpoints that there were: not from the writes alone."""


class InMemory:
    """Takes what is saved, and gives it."""

    def __init__(self) -> None:
        self.version = -1
        self._state: dict[str, Any] = {}
        self._rows: dict[str, list[tuple[Records, npt.NDArray[np.uint16]]]] = {}
        self._disk: dict[str, bytes] | None = None

    def take_state(self, version: int, state: KeptState) -> None:
        assert self.version < 0, "the state comes once, and first"
        self.version, self._state = version, dict(state)

    def take_rows(self, table: str, records: Records, marks_N: npt.NDArray[np.uint16]) -> None:
        assert self.version >= 0, "the state comes first"
        assert self._disk is None, "the disk comes last"
        assert len(records) == len(marks_N) > 0
        self._rows.setdefault(table, []).append((records, marks_N))

    def take_disk(self, folder: Path) -> None:
        assert self._disk is None, "it comes once"
        self._disk = {file.name: file.read_bytes() for file in folder.iterdir()}

    def state(self) -> dict[str, Any]:
        return self._state

    def put_disk(self, folder: Path) -> bool:
        for name, content in (self._disk or {}).items():
            (folder / name).write_bytes(content)
        return self._disk is not None

    def rows(self, table: str) -> list[tuple[Records, npt.NDArray[np.uint16]]]:
        return self._rows.get(table, [])


def saved(shard: Shard) -> InMemory:
    copy = InMemory()
    assert checkpoint(shard, copy) == shard.version == copy.version
    return copy


class UnderWay:
    """A checkpoint that is taken stretch by stretch, when its test says so, in slices of a few rows."""

    def __init__(self, shard: Shard, since: Since | None = None, sink: InMemory | None = None) -> None:
        self.copy = sink or InMemory()
        self.stretched = 0
        self._shard = shard
        self._operation = taking(shard.core, self.copy, since or {})
        self._place: Place | None = next(self._operation)

    def begin(self) -> None:
        """Makes the cut, and no more."""
        while self._shard.core.saves.waiting is None:
            self.stretches(1)

    def stretches(self, n: int) -> None:
        """Does the next n stretches, if there are as many."""
        for _ in range(n):
            if self._place is None:
                return
            self.stretched += 1
            if self._place is ENGINE:
                self._place = self._shard.engine.run(self._next)
            else:
                self._place = self._next()

    def finish(self) -> InMemory:
        """Does the rest; returns what was saved."""
        while self._place is not None:
            self.stretches(1)
        return self.copy

    def close(self) -> None:
        """Gives it up."""
        self._shard.engine.run(self._operation.close)

    def _next(self) -> Place | None:
        with small_slices():
            return next(self._operation, None)


@contextmanager
def small_slices() -> Iterator[None]:
    before = cut.SLICE_BYTES, cut.LARGE_BYTES
    cut.SLICE_BYTES = cut.LARGE_BYTES = 100
    try:
        yield
    finally:
        cut.SLICE_BYTES, cut.LARGE_BYTES = before


def contents(copy: InMemory) -> dict[str, object]:
    """All that was saved, comparable: rows by their ids, whatever slices they came in."""
    found = {name: _comparable(value) for name, value in copy.state().items() if name != "commit.repeats"}
    for name, pages in copy._rows.items():
        for records, marks_N in pages:
            for i, id_ in enumerate(records.ids_N.tolist()):
                row = (records.rows_NB[i].tobytes(), records.statistics_N2[i].tobytes(), int(marks_N[i]))
                assert found.setdefault(f"row {id_} of {name}", row) is row, "it was saved twice"
    return found


def check_tiers(shard: Shard) -> None:
    """What is known of the rows on disk without looking there is right: how many there are, which are in RAM as well,
    and which of these are the same."""
    for name, table in shard.tables.items():
        if table.has_disk:
            shard.engine.run(partial(_check_tiers, name, table))


def _check_tiers(name: str, table: Table) -> None:
    store, ram = table.store, table.ram
    store.finish_writing()
    below = {
        id_: (part.rows_NB[i].tobytes(), part.statistics_N2[i].tobytes())
        for part in store.below.partitions(0, PARTITIONS)
        for i, id_ in enumerate(part.ids_N.tolist())
    }
    assert len(store.below) == len(below), name
    assert store.below.may_have(np.array([*below], np.int64)).all(), name
    slots_N = store.dropped.living(np.flatnonzero(ram.marks_S[: ram.slots_end] & np.uint16(score.USED)))
    for records in ram.records(slots_N):
        marks_N = ram.marks_S[ram.find(records.ids_N)]
        for i, id_ in enumerate(records.ids_N.tolist()):
            if marks_N[i] & score.COPIED:
                assert id_ in below, (name, id_)
            elif id_ in below:  # of an earlier life
                assert store.dropped.cuts.met(np.frombuffer(below[id_][1], np.uint32)[None])[0], (name, id_)
            if marks_N[i] & (score.COPIED | score.DIRTY) == score.COPIED:
                assert below[id_][1] == records.statistics_N2[i].tobytes(), (name, id_)


@contextmanager
def again(copy: InMemory, config: ps.ServiceConfig, **arguments: Any) -> Iterator[Shard]:
    """A new shard that is the one that was saved."""
    shard = Shard(0, config, **arguments)
    try:
        assert restore(shard, copy) == shard.version
        yield shard
    finally:
        shard.close()


def whole(shard: Shard) -> dict[str, object]:
    """All of a shard that follows from its writes, comparable: the digest of each array, and each row as whoever reads
    it sees it, with its form."""
    timing = {f"counts.{name}" for name in TIMING}
    state = shard.engine.run(lambda: {name: _comparable(value) for name, value in state_of(shard.core).items()})
    found = {name: value for name, value in state.items() if name.split(".", 2)[-1] not in timing}
    del found["commit.repeats"]  # a log does not know them
    for name in [name for name in found if OWN.match(name)]:
        del found[name]
    for name, table in shard.tables.items():
        pages, _ = shard.engine.run(partial(table.store.pages.page, 0, 1_000_000))
        for records in pages:
            for i, id_ in enumerate(records.ids_N.tolist()):
                row = (records.rows_NB[i].tobytes(), records.statistics_N2[i].tobytes())
                assert found.setdefault(f"row {id_} of {name}", row) is row, "it is there twice"
    return found


def check_same(one: dict[str, object], other: dict[str, object]) -> None:
    """Both have the same by every name. What differs is said, not all that there is."""
    names = sorted({*one, *other})
    differing = {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}
    assert not differing, differing


def _comparable(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, xxhash.xxh3_64_hexdigest(np.ascontiguousarray(value))
    return value
