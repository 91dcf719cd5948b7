"""A table of a checkpoint, read for shards that are not those that have saved it: of another number, other settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.config import PARTITIONS, Fp16, TableConfig, TensorTrain
from ps.durability.checkpoint.source import NOTHING, Link, OnDisk, PartSource, component, table_state
from ps.durability.checkpoint.stores.store import FileStore
from ps.errors import ConfigError
from ps.kernels.index.hashing import partitions
from ps.storage.disk.database import Disk
from ps.storage.ram.cuts import Cuts
from ps.storage.ram.half_layout import HalfLayout, half_layout
from ps.storage.tier import Records, where

_CACHE_BYTES = 8 << 20
_PARTITIONS = PARTITIONS // 64
"""How many partitions of a disk are read at once."""


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
        tables = [table for chain in chains if (table := chain[0].part.table(config.name)) is not None]
        self.per_tick = max((table.per_tick for table in tables), default=1)
        """Stamps of a tick of its ranking: ages are in these stamps."""
        self.now = max((_scaled(table.stamp, table.per_tick, self.per_tick) for table in tables), default=0)
        """What the clocks of the shards showed, at the most: no age is more."""

    def pushes(self) -> int:
        """Returns how many pushes its optimizer has counted, the most that a shard has."""
        states = (
            table_state(PartSource(self._store, chain, self._nothing).state(), self.config.name)
            for chain in self._chains
        )
        return max((state["steps.total"] for state in states if state), default=0)

    def rows(self, wanted_P: npt.NDArray[np.bool_]) -> Iterator[Records]:
        """Yields the rows of some partitions, see `Checkpoints.rows`. Raises CheckpointCorrupt, DiskError and
        CorruptRow."""
        for chain in self._chains:
            table = chain[0].part.table(self.config.name)
            if table is None:
                continue
            state = PartSource(self._store, chain, self._nothing)
            with opened(self._store, chain, self.config) as disk:
                source = PartSource(self._store, chain, partial(statistics_of, disk))
                own = state.table_state(self.config.name)
                hot = _Hot(self.config, own, table.per_tick)
                for records in _everywhere(source, disk, hot, wanted_P, self.config.name):
                    yield self._aged(hot.rows(records), table.stamp, table.per_tick)

    def _aged(self, records: Records, now: int, per_tick: int) -> Records:
        """Returns records whose stamps are ages. They go by ticks: what is counted is ranks, and these do."""
        ages_N = np.maximum(now - records.stamps_N.astype(np.int64), 0)
        if per_tick != self.per_tick:
            ages_N = ages_N * self.per_tick // per_tick
        return replace(records, stamps_N=np.minimum(ages_N, self.now).astype(np.uint32))

    def _nothing(self, _config: TableConfig) -> OnDisk:
        return NOTHING


class Below:
    """The rows of one table in RocksDB's files."""

    def __init__(self, disk: Disk | None, config: TableConfig) -> None:
        self._tier = None if disk is None else disk.table(config.name, lengths_of(config))

    def rows(self) -> Iterator[Records]:
        """Yields all rows, also those that are dropped, or newer in RAM. Raises DiskError and CorruptRow."""
        for first in range(0, PARTITIONS if self._tier is not None else 0, _PARTITIONS):
            assert self._tier is not None
            yield from self._tier.partitions(first, first + _PARTITIONS)


def statistics_of(below: Below, _config: TableConfig) -> OnDisk:
    """Returns ids, ascending, and statistics of all rows."""
    parts = [(records.ids_N, records.statistics_N2) for records in below.rows()]
    if not parts:
        return NOTHING
    ids_N, statistics_N2 = (np.concatenate(each) for each in zip(*parts, strict=True))
    order_N = np.argsort(ids_N)
    return ids_N[order_N], statistics_N2[order_N]


@contextmanager
def opened(store: FileStore, chain: Sequence[Link], config: TableConfig) -> Iterator[Below]:
    """Opens what RocksDB's files have of a table: links or copies of them, which are gone afterwards."""
    with TemporaryDirectory(prefix=".opened-", dir=scratch_of(store)) as folder:
        rocksdb = Path(folder) / "rocksdb"
        rocksdb.mkdir()
        if not PartSource(store, chain, lambda _: NOTHING).put_disk(rocksdb):
            yield Below(None, config)
            return
        (Path(folder) / "EMBEDDING_PS").touch()
        disk = Disk(Path(folder), _CACHE_BYTES, threads=1, fresh=False)
        try:
            yield Below(disk, config)
        finally:
            disk.close()


def scratch_of(store: FileStore) -> str | None:
    """Returns the folder where links to a store's files can be made; None: anywhere."""
    return store.url if Path(store.url).is_dir() else None


def lengths_of(config: TableConfig) -> list[int]:
    """Returns the bytes that a row may have, those of a hot one first."""
    hot = 4 * (config.dim + config.optimizer.state_width(config.dim))
    half = _half_of(config)
    return [hot] if half is None else [hot, half.row_bytes]


def _half_of(config: TableConfig) -> HalfLayout | None:
    cold = config.cold
    return half_layout(config.dim, config.optimizer, cold.state) if isinstance(cold, Fp16) else None


def _scaled(stamp: int, per_tick: int, wanted: int) -> int:
    return stamp if per_tick == wanted else stamp * wanted // per_tick


class _Hot:
    """Makes rows what readers see of them, as hot rows; and says which were dropped."""

    def __init__(self, config: TableConfig, state: dict[str, Any], per_tick: int) -> None:
        self._half = _half_of(config)
        self._dropped, self._cold = Cuts(np.uint32(per_tick)), Cuts(np.uint32(per_tick))
        self._dropped.restore(component(state, "dropped", "cuts"))
        if self._half is not None:
            self._cold.restore(component(state, "cold", "cuts"))

    def alive(self, records: Records) -> Records:
        """Returns the records that no cut has met."""
        return where(records, ~self._dropped.met(records.statistics_N2))

    def rows(self, records: Records) -> Records:
        """Returns the records in the form of hot rows. What is cold by now is rounded, as for whoever reads it."""
        half, rows_NB = self._half, records.rows_NB
        if half is None:
            return records
        if rows_NB.shape[1] == half.row_bytes:
            return replace(records, rows_NB=half.to_full(rows_NB))
        met_N = self._cold.met(records.statistics_N2)
        if met_N.any():
            rows_NB = rows_NB.copy()
            rows_NB[met_N] = half.to_full(half.to_half(rows_NB[met_N]))
        return replace(records, rows_NB=rows_NB)


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
        chosen = where(chosen, ~np.isin(chosen.ids_N, ids_N, assume_unique=True))
        if len(chosen):
            yield chosen


def _of(records: Records, wanted_P: npt.NDArray[np.bool_]) -> Records:
    partitions_N = np.empty(len(records), np.int32)
    partitions(records.ids_N, partitions_N)
    return where(records, wanted_P[partitions_N])


def on_disk(store: FileStore, chain: Sequence[Link], config: TableConfig) -> OnDisk:
    """Returns the rows of a table that RocksDB's files have."""
    with opened(store, chain, config) as below:
        return statistics_of(below, config)
