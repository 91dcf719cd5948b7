"""The oracle of `python -m benchmarks crash` finds each lost and each doubled push, and lets nothing else count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ps
from benchmarks.durability.oracle import Oracle
from benchmarks.durability.pushes import ACKNOWLEDGED, MARKED, PLAIN, SENT, TRAINERS, Pushes, told

PUSHES = Pushes(rows=200, batch=20, shards=2)
LIVES = [0] * TRAINERS


class Run:
    """A service in this process, and trainers whose pushes reach it or not."""

    def __init__(self, client: ps.Client, path: Path) -> None:
        self.client, self.told = client, told(path)
        self.oracle = Oracle(PUSHES, self.told)

    def push(self, trainer: int, number: int, life: int = 0, acknowledged: bool = True, times: int = 1) -> None:
        for _ in range(times):
            ids, grads = PUSHES.push(trainer, life, number)
            self.client.prepare(ids).push(grads)
        self.told[trainer, life] = (number, number if acknowledged else number - 1)

    def found(self, lives: list[int] = LIVES) -> tuple[bool, bool, bool]:
        """Whether pushes are lost, doubled, and all is a prefix."""
        before = self.oracle.found.prefixes
        self.oracle.check(self.client, lives)
        found = self.oracle.found
        return found.lost > 0, found.doubled > 0, found.prefixes > before


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with ps.connect("inproc:shards=2") as client:
        for table in PUSHES.tables().values():
            client.create_table(table)
        yield Run(client, tmp_path / "told")


def test_what_was_acknowledged_and_one_more_is_a_prefix(run: Run) -> None:
    assert run.found() == (False, False, True)
    for trainer in range(TRAINERS):
        for number in range(1, 4):
            run.push(trainer, number)
    run.push(0, 4, acknowledged=False)
    run.push(1, 4, acknowledged=False, times=0)
    run.push(2, 1, life=1)
    assert run.found([0, 0, 1, 0]) == (False, False, True)
    run.told[0, 0, ACKNOWLEDGED] = 4
    assert run.found([0, 0, 1, 0]) == (False, False, True), "it was there before it was acknowledged"


def test_a_lost_push_is_found(run: Run) -> None:
    run.push(0, 1)
    run.push(0, 2, times=0)
    assert run.found() == (True, False, False)


def test_a_doubled_push_is_found(run: Run) -> None:
    run.push(0, 1, times=2)
    assert run.found() == (False, True, False)


def test_a_push_that_nobody_sent_is_no_prefix(run: Run) -> None:
    run.push(3, 1)
    run.told[3, 0] = (0, 0)
    assert run.found() == (False, True, False)


def test_a_row_that_lost_one_push_is_found(run: Run) -> None:
    run.push(0, 1)
    one_N = PUSHES.ids(0, 0, 1)[PLAIN][:1]
    run.client.push(PLAIN, one_N, -PUSHES.counting(0, 1))
    assert run.found() == (True, False, False)


def test_a_push_that_one_shard_has_is_counted_there_alone(run: Run) -> None:
    """It was sent to both, and a kill came between."""
    run.push(0, 1)
    ids, grads = PUSHES.push(0, 0, 2)
    on_first = {table: PUSHES.shard_of(ids_N) == 0 for table, ids_N in ids.items()}
    assert all(0 < mine_N.sum() < len(mine_N) for mine_N in on_first.values())
    run.client.prepare({table: ids[table][mine_N] for table, mine_N in on_first.items()}).push(
        {table: grads[table][mine_N] for table, mine_N in on_first.items()}
    )
    run.told[0, 0, SENT] = 2
    assert run.found() == (False, False, True)
    run.told[0, 0, ACKNOWLEDGED] = 2
    assert run.found() == (True, False, False)


def test_every_life_has_markers_of_its_own_on_each_shard() -> None:
    found = [
        PUSHES.markers(trainer, life, thousand) for trainer in range(4) for life in (0, 1, 1023) for thousand in (0, 1)
    ]
    ids_N = np.concatenate(found)
    assert len(np.unique(ids_N)) == len(ids_N)
    assert PUSHES.shard_of(ids_N).tolist() == [0, 1] * len(found)
    assert MARKED < 2048, "16 bits have these whole numbers"
