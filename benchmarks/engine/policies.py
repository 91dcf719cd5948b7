"""What a table keeps of a stream of accesses by its own ranking, and what other policies keep with the same room.

A push is a batch: its ids are a set, and rows leave when it is over. An access counts as found if its row was there
before its batch, or if it is not the first one of its id in the batch. The other policies see one access after the
other, which is finer than a table can be.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts, Ids
from ps.config import SGD, Importance, TableConfig
from ps.storage.disk.database import Disk
from ps.table.table import Table

PEERS = {
    "lru": "LRU",
    "lfu": "LFU",
    "arc": "ARC",
    "s3fifo": "S3FIFO",
    "2q": "TwoQ",
    "gdsf": "GDSF",
}
"""The names of other policies, with those that libcachesim uses. Belady, which knows the future, is measured too."""
SMALLEST_ROOM = 100
"""The smallest room that is measured: S3-FIFO has queues of a tenth of the room, and libcachesim ends the process where
one is empty."""
CONFIG = TableConfig(name="t", dim=1, optimizer=SGD())
LRU = Importance(frequency=0, recency=1)


def batches(ids_N: Ids, size: int) -> Iterator[tuple[Ids, Counts]]:
    """Yields the ids of each push, and how often each occurs in it."""
    for start in range(0, len(ids_N), size):
        unique_U, counts_U = np.unique(ids_N[start : start + size], return_counts=True)
        yield unique_U, counts_U.astype(np.uint32)


def evicting(ids_N: Ids, room: int, batch: int, importance: Importance = CONFIG.importance) -> float:
    """Returns the share of accesses that find their row in a table of at most `room` rows, which loses what it
    evicts."""
    table = Table(CONFIG.model_copy(update={"max_rows_per_shard": room, "importance": importance}))
    hits = 0
    for unique_U, counts_U in batches(ids_N, batch):
        slots_U = table.find(unique_U)
        hits += int(counts_U.sum()) - int((slots_U < 0).sum())
        _push(table, unique_U, slots_U, counts_U)
    table.close()
    return hits / len(ids_N)


def placing(ids_N: Ids, room: int, batch: int, importance: Importance = CONFIG.importance) -> float:
    """Returns the share of accesses that find their row in RAM, with a disk below and at most `room` rows in RAM."""
    hits = 0
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(Path(folder) / "rows", 8 << 20, 1)
        config = CONFIG.model_copy(update={"importance": importance})
        table = Table(config, disk=disk, resident_rows=lambda total: room)
        for unique_U, counts_U in batches(ids_N, batch):
            missing_M = unique_U[table.find(unique_U) < 0]
            hits += int(counts_U.sum()) - len(missing_M)
            fetch = table.store.fetch(missing_M)
            if fetch is not None:
                fetch.read()
                table.store.install(fetch)
                table.store.end(fetch)
            _push(table, unique_U, table.find(unique_U), counts_U)
            while (demotion := table.maintain()) is not None:
                demotion.write()
                table.store.finish(demotion)
        table.close()
        disk.close()
    return hits / len(ids_N)


def of_peers(ids_N: Ids, room: int) -> dict[str, float]:
    """Returns the share of accesses that other policies, and "belady", find; empty without libcachesim, or in a room
    that is too small for it."""
    if room < SMALLEST_ROOM:
        return {}
    try:
        import libcachesim
    except ImportError:
        print("# trace: no libcachesim, so no other policies: pip install embedding-ps[policies]")
        return {}
    found = {}
    with tempfile.NamedTemporaryFile(suffix=".oracleGeneral.bin") as file:
        _requests(ids_N).tofile(file.name)
        for name, policy in (*PEERS.items(), ("belady", "Belady")):
            reader = libcachesim.TraceReader(file.name, libcachesim.TraceType.ORACLE_GENERAL_TRACE)
            missed, _ = getattr(libcachesim, policy)(room).process_trace(reader)
            found[name] = 1 - float(missed)
    return found


def _push(table: Table, unique_U: Ids, slots_U: npt.NDArray[np.int64], counts_U: Counts) -> None:
    table.reserve.create_missing(unique_U, slots_U)
    table.writes.plan_push(unique_U, slots_U, counts_U, [np.zeros((len(unique_U), 1), np.float32)]).carry_out()


def _requests(ids_N: Ids) -> npt.NDArray[np.void]:
    """Returns the stream in libcachesim's format "oracleGeneral": each request has size 1 and the time of the next
    request of its id."""
    form = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    requests_N = np.zeros(len(ids_N), form)
    requests_N["id"], requests_N["size"] = np.unique(ids_N, return_inverse=True)[1] + 1, 1
    order_N = np.lexsort((np.arange(len(ids_N)), ids_N))
    next_N = np.full(len(ids_N), -1)
    same_N = ids_N[order_N[1:]] == ids_N[order_N[:-1]]
    next_N[order_N[:-1][same_N]] = order_N[1:][same_N]
    requests_N["time"], requests_N["next"] = np.arange(len(ids_N)), next_N
    return requests_N
