"""Reads back what a shard has written: a part, and those that it builds on.

    newest part    its rows as they are; state and RocksDB's files are its own
    older parts    their rows that no newer part has, that were not removed or dropped since, and that the disk does not
                   have as they are, or newer

A row of an older part that the disk has as it is may have been in RAM as well: it comes up again when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids
from ps.config import TableConfig
from ps.durability.checkpoint.disk_files import put_out
from ps.durability.checkpoint.manifest import Part, PartTable, path_of
from ps.durability.checkpoint.reading import Reading
from ps.durability.checkpoint.rows_file import Block, blocks_of
from ps.durability.checkpoint.state_file import read_state
from ps.durability.checkpoint.stores.store import FileStore
from ps.errors import CheckpointCorrupt
from ps.kept import parted
from ps.kernels.ranking import score
from ps.kernels.ranking.score import Statistics
from ps.storage.ram.cuts import Cuts
from ps.storage.tier import where

OnDisk = tuple[Ids, Statistics]
"""Ids, ascending, and (score's bits, stamp) of the rows of a table that are on disk."""
NOTHING: OnDisk = (np.empty(0, np.int64), np.empty((0, 2), np.uint32))


class Link(NamedTuple):
    """A part, and the checkpoint that has it."""

    name: str
    part: Part


class PartSource:
    """A part with all that it builds on: a `ps.durability.state.Source`."""

    def __init__(self, store: FileStore, chain: Sequence[Link], on_disk: Callable[[TableConfig], OnDisk]) -> None:
        """chain: the newest first. on_disk: returns the rows of a table that RocksDB's files have; asked where older
        parts have rows."""
        self._store, self._chain, self._on_disk = store, chain, on_disk
        self._state: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """Returns all but the rows. Raises CheckpointCorrupt and DiskError."""
        if self._state is None:
            self._state = _state_of(self._store, self._chain[0])
        return self._state

    def put_disk(self, folder: Path) -> bool:
        """Fills an empty folder of this host with RocksDB's files, links where that can be done; returns whether there
        are any. Raises CheckpointCorrupt, DiskError and DiskFull."""
        return put_out(self._store, *self._chain[0], folder)

    def rows(self, table: str) -> Iterator[Block]:
        """Yields the rows that were in RAM, with their marks; of each id one. Of older parts those that are on disk as
        they are now are left out: they may come up again. Raises CheckpointCorrupt and DiskError."""
        newest = self._chain[0].part.table(table)
        links = [] if newest is None else self._links(newest)
        if len(links) == 1:
            yield from _rows_of(self._store, links[0], table)
        elif newest is not None:
            yield from self._newest(newest, links)

    def _links(self, newest: PartTable) -> list[Link]:
        """Returns the parts that have rows of this table."""
        links: list[Link] = []
        for link in self._chain:
            table = link.part.table(newest.name)
            if table is None or table.born != newest.born:
                break
            links.append(link)
            if table.whole:
                break
        return links

    def _newest(self, newest: PartTable, links: Sequence[Link]) -> Iterator[Block]:
        state, cuts = self.table_state(newest.name), Cuts(np.uint32(newest.per_tick))
        cuts.restore(component(state, "dropped", "cuts"))
        config = TableConfig.from_json(state["config"])
        disk: OnDisk | None = None
        gone_N = np.empty(0, np.int64)
        for number, link in enumerate(links):
            ids = [gone_N]
            for records, marks_N in _rows_of(self._store, link, newest.name):
                if number:
                    disk = self._on_disk(config) if disk is None else disk
                    yield from _living(Block(records, marks_N), gone_N, cuts, disk)
                else:
                    yield Block(records, marks_N)
                if number < len(links) - 1:
                    ids.append(records.ids_N.copy())
            if number < len(links) - 1:
                if number:
                    state = table_state(_state_of(self._store, link), newest.name)
                ids.append(state["removed.ids_N"])
                gone_N = np.unique(np.concatenate(ids))

    def table_state(self, table: str) -> dict[str, Any]:
        """Returns the state of a table. Raises CheckpointCorrupt and DiskError."""
        return table_state(self.state(), table)


def _living(block: Block, gone_N: Ids, cuts: Cuts, disk: OnDisk) -> Iterator[Block]:
    """Yields those of some rows of an older part that are in RAM still."""
    records, marks_N = block
    statistics_N2 = records.statistics_N2
    here_N = ~among(records.ids_N, gone_N)[0] & ~cuts.met(statistics_N2)
    copied_N, at_N = among(records.ids_N, disk[0])
    here_N[copied_N] &= _later(statistics_N2[copied_N], disk[1][at_N[copied_N]])
    marks_N = np.where(copied_N, marks_N | score.COPIED | score.DIRTY, marks_N & ~np.uint16(score.COPIED))
    if here_N.any():
        yield Block(where(records, here_N), marks_N[here_N])


def among(ids_N: Ids, sorted_M: Ids) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Returns which ids are among those, which ascend, and where."""
    if not len(sorted_M):
        return np.zeros(len(ids_N), np.bool_), np.zeros(len(ids_N), np.int64)
    at_N = np.minimum(np.searchsorted(sorted_M, ids_N), len(sorted_M) - 1)
    return sorted_M[at_N] == ids_N, at_N


def _later(one_N2: Statistics, other_N2: Statistics) -> npt.NDArray[np.bool_]:
    """Returns which rows are newer than others of the same ids: by stamp, then by score."""
    one_N, other_N = (each[:, 1].astype(np.uint64) << np.uint64(32) | each[:, 0] for each in (one_N2, other_N2))
    later_N: npt.NDArray[np.bool_] = one_N > other_N
    return later_N


def _rows_of(store: FileStore, link: Link, table: str) -> Iterator[Block]:
    files = {file.name: file for file in link.part.files}
    number = next(n for n, each in enumerate(link.part.tables) if each.name == table)
    for extent in link.part.tables[number].rows:
        file = files.get(f"rows-{extent.file:04d}")
        if file is None:
            raise CheckpointCorrupt(f"{store.url}/{link.name}: shard {link.part.shard} lacks rows-{extent.file:04d}")
        path = path_of(link.name, link.part.shard, file)
        yield from blocks_of(Reading(store, path, file.nbytes, extent.start, extent.end), number)


def _state_of(store: FileStore, link: Link) -> dict[str, Any]:
    file = next((file for file in link.part.files if file.name == "state"), None)
    if file is None:
        raise CheckpointCorrupt(f"{store.url}/{link.name}: shard {link.part.shard} has no file of its state")
    return read_state(Reading(store, path_of(link.name, link.part.shard, file), file.nbytes))


def table_state(state: dict[str, Any], table: str) -> dict[str, Any]:
    """Returns the state of a table; empty if there is none."""
    for own in parted(parted(state).get("tables", {})).values():
        if TableConfig.from_json(own["config"]).name == table:
            return own
    return {}


def component(state: dict[str, Any], *names: str) -> dict[str, Any]:
    """Returns the state of a component within others."""
    for name in names:
        state = parted(state).get(name, {})
    return state
