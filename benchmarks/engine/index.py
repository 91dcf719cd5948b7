"""Measures the id index alone, at the size of a table."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.harness.data import batches, generator, random_ids
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from ps.arrays import Ids
from ps.kernels import warm_up
from ps.kernels.index.index import IdIndex

SMALL_INSERT = 1_000
"""Ids of each of the inserts whose longest pause is looked for."""


def run(report: Report, sizes: Sizes) -> None:
    """Measures find, insert and erase in a full index, and pauses in one that grows."""
    warm_up()  # loading a kernel is not a stall
    rng = generator()
    ids_N = random_ids(rng, sizes.rows)
    _stalls(report, ids_N)
    index = IdIndex()
    slots_N = np.empty(sizes.batch, np.int64)
    filled = []
    for start in range(0, sizes.rows, sizes.batch):
        part_N = ids_N[start : start + sizes.batch]
        started = time.perf_counter()
        index.find_or_insert(part_N, np.arange(start, start + len(part_N)), slots_N[: len(part_N)])
        filled.append(len(part_N) / (time.perf_counter() - started) / 1e6)
    report.add("fill", "insert_million_per_s", filled)
    report.add("full", "bytes_per_id", index.nbytes / len(index))

    present = batches(rng, ids_N[sizes.rows // 2 :], sizes.batch)
    moving = batches(rng, ids_N[: sizes.rows // 2], sizes.batch)  # erased and inserted again
    absent = batches(rng, random_ids(rng, 2 * sizes.batch), sizes.batch)
    half = sizes.batch // 2
    free_N = np.arange(sizes.rows, sizes.rows + sizes.batch)

    def half_absent(turn: int) -> Ids:
        return rng.permutation(np.concatenate([present(turn)[:half], absent(turn)[: sizes.batch - half]]))

    def insert_and_forget(part_N: Ids) -> None:
        index.find_or_insert(part_N, free_N, slots_N)

    def make_absent(turn: int) -> Ids:
        index.erase(moving(turn), slots_N)
        return moving(turn)

    def make_present(turn: int) -> Ids:
        insert_and_forget(moving(turn))
        return moving(turn)

    rounds = interleave(
        sizes.rounds,
        {
            "find": Contender(lambda part_N: index.find(part_N, slots_N), present),
            "find_half_absent": Contender(lambda part_N: index.find(part_N, slots_N), half_absent),
            "find_or_insert_present": Contender(insert_and_forget, present),
            "find_or_insert_absent": Contender(insert_and_forget, make_absent),
            "erase": Contender(lambda part_N: index.erase(part_N, slots_N), make_present),
        },
    )
    for name in rounds.seconds:
        report.add(name, "million_ids_per_s", rounds.per_second(name, sizes.batch / 1e6))
    index.close()


def _stalls(report: Report, ids_N: Ids) -> None:
    index = IdIndex()
    slots_N = np.empty(SMALL_INSERT, np.int64)
    wall_ms, cpu_ms = [], []
    for start in range(0, len(ids_N) - SMALL_INSERT + 1, SMALL_INSERT):
        new_slots_N = np.arange(start, start + SMALL_INSERT)
        started, started_cpu = time.perf_counter(), time.thread_time()
        index.find_or_insert(ids_N[start : start + SMALL_INSERT], new_slots_N, slots_N)
        cpu_ms.append((time.thread_time() - started_cpu) * 1e3)
        wall_ms.append((time.perf_counter() - started) * 1e3)
    report.add("growing", "insert_1000_ms", wall_ms)
    report.add("growing", "longest_stall_ms", max(wall_ms))
    report.add("growing", "longest_stall_cpu_ms", max(cpu_ms))  # without what other processes took meanwhile
    index.close()
