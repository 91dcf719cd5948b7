"""Replays real traces of accesses: what a table keeps of them, evicting and placing, against other policies.

Three traces of a shop (Jens Wilke, headissue GmbH, CC BY 4.0): accesses of objects, and of product pages in two
months. They are looked for below EMBEDDING_PS_DATA; one that is not there is left out. How hits are counted:
`benchmarks.engine.policies`.
"""

from __future__ import annotations

import lzma
import os
import tempfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.engine.policies import CONFIG, LRU, batches, evicting, of_peers, placing
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from ps.arrays import Counts, Ids
from ps.config import DiskConfig, ServiceConfig, WatchingConfig
from ps.shard import Gradients, Shard, StepRef, TableIds
from ps.shard.ledger import WriteId

FOLDER = Path("traces")
TRACES = ("orm-busy", "web07", "web12")
ROOMS = (0.01, 0.1, 0.3, 0.5)
"""The rooms that are measured, as shares of the ids."""
FEW, MANY = 32, 512
"""Accesses of a push: FEW compares with policies that see one access after the other, MANY is a trainer's batch. In a
room of few rows FEW is less, or most of them would be of the last push."""
BATCH, AHEAD = 500, 2


def run(report: Report, sizes: Sizes) -> None:
    """Reports the share of the accesses that find their row and, with half of the rows on disk, the share that waits
    for the disk."""
    for name in TRACES:
        ids_N = _trace(name, sizes)
        if ids_N is not None:
            for share in ROOMS:
                _compare(report, f"{name}_{share:g}", ids_N, max(int(len(np.unique(ids_N)) * share), 1))
    ids_N = _trace(TRACES[0], sizes)
    if ids_N is not None:
        late, waited = _prepared(ids_N)
        report.add("half_on_disk", "late_share", [late])
        report.add("half_on_disk", "waited_share", [waited])


def _trace(name: str, sizes: Sizes) -> Ids | None:
    path = Path(os.environ.get("EMBEDDING_PS_DATA", ".")) / FOLDER / f"{name}.trace.xz"
    if not path.exists():
        print(f"# trace: no {path}: set EMBEDDING_PS_DATA")
        return None
    return np.frombuffer(lzma.decompress(path.read_bytes()), ">i4").astype(np.int64)[: sizes.trace_accesses]


def _compare(report: Report, case: str, ids_N: Ids, room: int) -> None:
    few = max(1, min(FEW, room // 20))
    evicted, placed = evicting(ids_N, room, few), placing(ids_N, room, few)
    peers = of_peers(ids_N, room)
    report.add(case, "hit_rate", [evicted])
    report.add(case, "hit_rate_placed", [placed])
    report.add(case, "hit_rate_recency_alone", [evicting(ids_N, room, few, LRU)])
    for name, found in peers.items():
        report.add(case, f"hit_rate_{name}", [found])
    if peers:
        belady = peers.pop("belady")
        report.add(case, "hit_rate_vs_lru", [evicted / peers["lru"]])
        report.add(case, "hit_rate_vs_best_of_peers", [evicted / max(peers.values())])
        report.add(case, "hit_rate_vs_belady", [evicted / belady])
    report.add(case, f"hit_rate_by_{MANY}", [evicting(ids_N, room, MANY)])
    report.add(case, f"hit_rate_placed_by_{MANY}", [placing(ids_N, room, MANY)])
    report.add(case, f"hit_rate_recency_alone_by_{MANY}", [evicting(ids_N, room, MANY, LRU)])


def _prepared(ids_N: Ids) -> tuple[float, float]:
    """Prepares each step AHEAD steps before its pull, with half of the rows on disk. Returns the share of accesses that
    read the disk while a pull or push waited, and the share whose prepare was not done in time."""
    waited = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AHEAD + 1) as pool:
        shard = Shard(0, ServiceConfig(disk=DiskConfig(path=Path(folder)), watching=WatchingConfig(metrics=False)))
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

        for step, (unique_U, counts_U) in enumerate(batches(ids_N, BATCH), 1):
            preparing = pool.submit(shard.prepare, StepRef(1, step), [TableIds("t", unique_U, counts_U)])
            ahead.append((step, unique_U, counts_U, preparing))
            if len(ahead) > AHEAD:
                waited += train()
        while ahead:
            waited += train()
        late = shard.core.rise.rows_late
        shard.close()
    return late / len(ids_N), waited / len(ids_N)
