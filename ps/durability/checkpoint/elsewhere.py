"""A table of a checkpoint, read for shards that are not those that have saved it: of another number, other settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes
from ps.config import Fp16, TableConfig, TensorTrain
from ps.durability.checkpoint.manifest import SCRATCH, PartTable, stem_of
from ps.durability.checkpoint.source import NOTHING, Link, OnDisk, PartSource, among, component
from ps.durability.checkpoint.stores.store import FileStore
from ps.errors import ConfigError
from ps.kernels.index.hashing import partitions
from ps.kernels.ranking import score
from ps.runtime.clock import SYSTEM_CLOCK
from ps.storage.disk.copy import NOTHING as NOTHING_KNOWN
from ps.storage.disk.copy import Known, reading
from ps.storage.ram.cuts import Cuts
from ps.storage.ram.half_layout import HalfLayout, half_layout
from ps.storage.tier import Records, where


class Elsewhere:
    """A table of a checkpoint."""

    def __init__(self, store: FileStore, config: TableConfig, chains: Sequence[Sequence[Link]]) -> None:
        """chains: of each shard, the newest part first. Raises ConfigError for a table with tensor-train cores."""
        if isinstance(config.cold, TensorTrain):
            raise ConfigError(
                f"table {config.name!r} has tensor-train cores, which all ids of a shard share: they cannot be split "
                f"over other shards, nor changed. Restore it, under its name, into a new service of {len(chains)} "
                "shards, as many as have saved it; or export it and import its rows"
            )
        self._store, self.config, self._chains = store, config, chains

    def pushes(self) -> int:
        """Returns how many pushes its optimizer has counted, the most that a shard has. Raises CheckpointCorrupt and
        DiskError."""
        states = [PartSource(self._store, chain, _nothing).table_state(self.config.name) for chain in self._chains]
        return max((int(state["steps.total"]) for state in states if state), default=0)

    def rows(self, wanted_P: npt.NDArray[np.bool_]) -> Iterator[Records]:
        """Yields the rows of some partitions, see `Checkpoints.rows`. Raises CheckpointCorrupt, DiskError and
        CorruptRow."""
        name = self.config.name
        for chain in self._chains:
            table = chain[0].part.table(name)
            if table is None:
                continue
            with opened(self._store, PartSource(self._store, chain, _nothing), name) as below:
                source = PartSource(self._store, chain, below.statistics)
                hot = _Hot(self.config, source.table_state(name), table)
                for records in _everywhere(source, below, hot, wanted_P, name):
                    yield hot.rows(records)


class Below:
    """The rows of one table in RocksDB's files."""

    def __init__(self, folder: Path, known: Known, table: str) -> None:
        """folder: has the files. known: what the state says of them."""
        self._folder, self._known, self._table = folder, known, table

    def rows(self) -> Iterator[Records]:
        """Yields all rows, also those that are dropped, or newer in RAM. Raises DiskError and CorruptRow."""
        if self._known.rows.get(self._table):
            with reading(self._folder, self._known) as tables:
                yield from tables[self._table]

    def statistics(self, _config: TableConfig) -> OnDisk:
        """Returns ids, ascending, and statistics of all rows."""
        parts = [(records.ids_N, records.statistics_N2) for records in self.rows()]
        if not parts:
            return NOTHING
        ids_N, statistics_N2 = (np.concatenate(each) for each in zip(*parts, strict=True))
        order_N = np.argsort(ids_N)
        return ids_N[order_N], statistics_N2[order_N]


def on_disk(store: FileStore, chain: Sequence[Link], config: TableConfig) -> OnDisk:
    """Returns the rows of a table that RocksDB's files have."""
    with opened(store, PartSource(store, chain, _nothing), config.name) as below:
        return below.statistics(config)


@contextmanager
def opened(store: FileStore, source: PartSource, table: str) -> Iterator[Below]:
    """Yields what RocksDB's files have of a table, from links or copies of them, which are gone afterwards."""
    known = source.state().get("disk")
    if known is None:
        yield Below(Path(), NOTHING_KNOWN, table)
        return
    beside = store.url if os.access(store.url, os.W_OK) else None  # where links can be made
    prefix = f"{SCRATCH}{stem_of(SYSTEM_CLOCK.wall())}-"  # so that what a crash leaves is known to be old
    with TemporaryDirectory(prefix=prefix, dir=beside) as folder:
        source.put_disk(Path(folder))
        yield Below(Path(folder), Known.from_json(known), table)


def _nothing(_config: TableConfig) -> OnDisk:
    return NOTHING


def _half_of(config: TableConfig) -> HalfLayout | None:
    cold = config.cold
    return half_layout(config.dim, config.optimizer, cold.state) if isinstance(cold, Fp16) else None


class _Hot:
    """Makes rows what readers see of them, as hot rows; and says which were dropped."""

    def __init__(self, config: TableConfig, state: dict[str, Any], table: PartTable) -> None:
        self._table, self._half = table, _half_of(config)
        self._dropped, self._cold = Cuts(np.uint32(table.per_tick)), Cuts(np.uint32(table.per_tick))
        self._dropped.restore(component(state, "dropped", "cuts"))
        if self._half is not None:
            self._cold.restore(component(state, "cold", "cuts"))

    def alive(self, records: Records) -> Records:
        """Returns the records that no cut has met."""
        return where(records, ~self._dropped.met(records.statistics_N2))

    def rows(self, records: Records) -> Records:
        """Returns the records in the form of hot rows, with scores as of now. What is cold by now is rounded, as it is
        for whoever reads it."""
        scores_N = score.aged(records.statistics_N2, self._table.stamp, self._table.per_tick)
        rows_NB = records.rows_NB if self._half is None else self._full(self._half, records)
        return Records(records.ids_N, rows_NB, scores_N, np.zeros(len(records), np.uint32))

    def _full(self, half: HalfLayout, records: Records) -> Bytes:
        rows_NB = records.rows_NB
        if rows_NB.shape[1] == half.row_bytes:
            return half.to_full(rows_NB)
        met_N = self._cold.met(records.statistics_N2)
        if met_N.any():
            rows_NB = rows_NB.copy()
            rows_NB[met_N] = half.to_full(half.to_half(rows_NB[met_N]))
        return rows_NB


def _everywhere(
    source: PartSource, below: Below, hot: _Hot, wanted_P: npt.NDArray[np.bool_], table: str
) -> Iterator[Records]:
    """Yields the living rows of one shard, those in RAM first; with the bytes that they have."""
    in_ram = [np.empty(0, np.int64)]
    for records, _ in source.rows(table):
        chosen = _of(records, wanted_P)
        in_ram.append(chosen.ids_N.copy())
        if len(chosen):
            yield chosen
    ids_N = np.sort(np.concatenate(in_ram))
    for records in below.rows():
        chosen = hot.alive(_of(records, wanted_P))
        chosen = where(chosen, ~among(chosen.ids_N, ids_N)[0])
        if len(chosen):
            yield chosen


def _of(records: Records, wanted_P: npt.NDArray[np.bool_]) -> Records:
    partitions_N = np.empty(len(records), np.int32)
    partitions(records.ids_N, partitions_N)
    return where(records, wanted_P[partitions_N])
