"""A real trace of accesses replayed: what placement by decayed frequency keeps in RAM, against LRU with the same room.

The trace: 5,000,000 object accesses of an e-commerce site ("orm-busy", Jens Wilke, headissue GmbH, CC BY 4.0). It is
looked for below EMBEDDING_PS_DATA; without it there is nothing to report. BATCH accesses are a step.
"""

from __future__ import annotations

import lzma
import os
import tempfile
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.data import Ids
from benchmarks.measure import Report, Sizes
from ps.config import SGD, ServiceConfig, TableConfig
from ps.shard import Gradients, Shard, StepRef, TableIds
from ps.shard.ledger import WriteId
from ps.storage.disk import Disk
from ps.table import Table

FILE = Path("traces") / "orm-busy.trace.xz"
ROOMS = (0.01, 0.1, 0.25, 0.5)
"""Of the ids."""
BATCH, AHEAD = 500, 2
CONFIG = TableConfig(name="t", dim=1, optimizer=SGD())

Counts = npt.NDArray[np.uint32]


def run(report: Report, sizes: Sizes) -> None:
    """Shares of the accesses that find their row in RAM; and, with half of the rows on disk, that wait for the disk."""
    path = Path(os.environ.get("EMBEDDING_PS_DATA", ".")) / FILE
    if not path.exists():
        print(f"# trace: no {path}: set EMBEDDING_PS_DATA")
        return
    ids_N = np.frombuffer(lzma.decompress(path.read_bytes()), ">i4").astype(np.int64)[: sizes.trace_accesses]
    distinct = len(np.unique(ids_N))
    for share in ROOMS:
        room, case = int(distinct * share), f"room_{share:g}"
        ours, lru = _placed(ids_N, room), _lru(ids_N, room)
        report.add(case, "hit_rate", [ours])
        report.add(case, "hit_rate_lru", [lru])
        report.add(case, "hit_rate_vs_lru", [ours / lru])
    late, waited = _prepared(ids_N)
    report.add("half_on_disk", "late_share", [late])
    report.add("half_on_disk", "waited_share", [waited])


def _steps(ids_N: Ids) -> Iterator[tuple[Ids, Counts]]:
    for start in range(0, len(ids_N), BATCH):
        unique_U, counts_U = np.unique(ids_N[start : start + BATCH], return_counts=True)
        yield unique_U, counts_U.astype(np.uint32)


def _lru(ids_N: Ids, room: int) -> float:
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for id_ in ids_N.tolist():
        if id_ in held:
            hits += 1
            held.move_to_end(id_)
        else:
            held[id_] = None
            if len(held) > room:
                held.popitem(last=False)
    return hits / len(ids_N)


def _placed(ids_N: Ids, room: int) -> float:
    """A table that keeps at most `room` rows in RAM between steps, by its own ranking and its own store."""
    hits = 0
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(Path(folder) / "rows", 8 << 20, 1)
        table = Table(CONFIG, disk=disk, resident_rows=lambda total: room)
        for unique_U, counts_U in _steps(ids_N):
            slots_U = table.find(unique_U)
            missing_M = unique_U[slots_U < 0]
            hits += int(counts_U.sum()) - len(missing_M)
            fetch = table.store.fetch(missing_M)
            if fetch is not None:
                fetch.read()
                table.store.install(fetch)
                table.store.end(fetch)
            slots_U = table.find(unique_U)
            table.create_missing(unique_U, slots_U)
            table.apply(unique_U, slots_U, counts_U, [np.zeros((len(unique_U), 1), np.float32)])
            while (demotion := table.maintain()) is not None:
                demotion.write()
                table.store.finish(demotion)
        table.close()
        disk.close()
    return hits / len(ids_N)


def _prepared(ids_N: Ids) -> tuple[float, float]:
    """Half of the rows on disk, each step prepared AHEAD steps before its pull: the share of accesses that read the
    disk while a pull or push waited, and of those whose prepare was not done when its turn came."""
    waited = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AHEAD + 1) as pool:
        shard = Shard(0, ServiceConfig(disk_path=Path(folder), metrics=False))
        shard.create_table(CONFIG)
        ahead: deque[tuple[int, Ids, Counts, Future[int]]] = deque()

        def train() -> int:
            step, unique_U, counts_U, preparing = ahead.popleft()
            late = 0 if preparing.done() else int(counts_U.sum())
            preparing.result()
            with shard.pull(StepRef(1, step)) as pulled:
                pulled.head()
            with shard.look_ahead(StepRef(1, step)) as looked:
                zeros = Gradients("t", [np.zeros((len(unique_U), 1), np.float32)])
                shard.push(WriteId(1, step, step), looked, [zeros])
            return late

        for step, (unique_U, counts_U) in enumerate(_steps(ids_N), 1):
            preparing = pool.submit(shard.prepare, StepRef(1, step), [TableIds("t", unique_U, counts_U)])
            ahead.append((step, unique_U, counts_U, preparing))
            if len(ahead) > AHEAD:
                waited += train()
        while ahead:
            waited += train()
        late = shard.rows_late
        shard.close()
    return late / len(ids_N), waited / len(ids_N)
