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
from ps.durability.state import checkpoint, restore
from ps.kept import KeptState
from ps.shard import Shard
from ps.shard.state import state_of
from ps.storage.tier import Records
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
