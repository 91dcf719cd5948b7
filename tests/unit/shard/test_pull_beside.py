"""Pulls that read the disk themselves, while other steps bring rows up and writes drop them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.arrays import Ids
from ps.kernels.ranking import score
from ps.shard import Shard, StepRef
from ps.storage.disk.tier import DiskTier
from ps.storage.tier import Records
from tests.unit.shard.helpers import a_write, ids_of, new_table, push_ids, read_target
from tests.waiting import LIMIT_S, until

IDS = range(20)


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    running = Shard(0, ps.ServiceConfig(disk={"path": tmp_path}, performance={"disk_cache_bytes": 1 << 20}))
    new_table(running, swap_fraction=0.9)
    yield running
    running.close()


def push_and_demote(shard: Shard) -> int:
    """Row i is -i everywhere; an id that is on disk alone."""
    push_ids(shard, "t", IDS, [[i] * 4 for i in IDS])
    table = shard.tables["t"]

    def below() -> Ids:
        return np.flatnonzero(shard.engine.run(lambda: table.find(np.array(IDS))) < 0)

    until(lambda: len(below()) == 18)
    return int(below()[-1])


def test_a_pull_sees_a_row_that_another_step_brings_up_while_it_reads_the_disk(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = push_and_demote(shard)
    plain_read, threads = DiskTier.read, []
    reading, go = threading.Event(), threading.Event()

    def first_waits(tier: DiskTier, ids_N: Ids, *check: Callable[[], None]) -> list[Records]:
        threads.append(threading.current_thread())
        found = plain_read(tier, ids_N, *check)
        if len(threads) == 1:
            reading.set()
            assert go.wait(LIMIT_S)
        return found

    monkeypatch.setattr(DiskTier, "read", first_waits)
    stream = shard.pull([ids_of("t", [id_])])
    assert reading.wait(LIMIT_S)
    shard.prepare(StepRef(1, 1), [ids_of("t", [id_])])
    go.set()
    assert stream.head().tables[0].rows == 1
    assert np.concatenate(list(stream)).tolist() == [-id_] * 4


def test_rows_of_a_step_stay_for_it_when_others_are_removed(shard: Shard) -> None:
    ref = StepRef(1, 1)
    shard.prepare(ref, [ids_of("t", IDS)])
    push_ids(shard, "t", [*IDS, 1000], [[i] * 4 for i in [*IDS, 1000]])
    for gone in ([1000], [3]):
        shard.remove(a_write(), ids_of("t", gone))
    push_and_demote_others(shard)  # makes row 3 again
    table = shard.tables["t"]
    assert (shard.engine.run(lambda: table.find(np.array(IDS))) >= 0).all()
    assert read_target(shard, ref)[0][:, 0].tolist() == [-2 * i if i != 3 else -3 for i in IDS]
    assert shard.core.rise.rows_late == 0


def test_rows_that_a_step_has_held_go_down_after_it(shard: Shard) -> None:
    ref = StepRef(1, 1)
    shard.prepare(ref, [ids_of("t", IDS)])
    shard.remove(a_write(), ids_of("t", [1]))
    push_and_demote_others(shard)
    shard.remove(a_write(), ids_of("t", [2, 3]))
    shard.forget(ref)
    push_ids(shard, "t", [100], [[1] * 4])
    table = shard.tables["t"]
    until(lambda: len(table.ram) <= 4)
    assert not len(table.ram._awaited)
    assert (table.ram.marks_S[: table.ram.slots_end] < score.PIN).all()


def test_rows_created_after_a_step_was_prepared_stay_for_it(shard: Shard) -> None:
    ref = StepRef(1, 1)
    shard.prepare(ref, [ids_of("t", IDS)])
    push_and_demote_others(shard)
    assert read_target(shard, ref)[0][:, 0].tolist() == [-i for i in IDS]
    assert shard.core.rise.rows_late == 0


def push_and_demote_others(shard: Shard) -> None:
    """The rows of IDS, and as many others, all of which go down: 36 of 40 belong on disk, and 20 are held."""
    push_ids(shard, "t", IDS, [[i] * 4 for i in IDS])
    push_ids(shard, "t", range(100, 120), [[1] * 4] * 20)
    table = shard.tables["t"]
    until(lambda: table.counts.rows_demoted >= 20)
