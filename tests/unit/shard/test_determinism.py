"""The same writes in the same order give the same bytes, whatever happens around them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import numpy as np
import pytest

import ps
from ps.errors import StepNotFound
from ps.shard import Gradients, Shard, StepRef, TableIds
from ps.shard.ledger import WriteId
from tests.unit.shard.helpers import everything, ids_of, new_table, push, read_target

OPTIMIZERS = [ps.SGD(), ps.Adagrad(), ps.RowwiseAdagrad(), ps.Adam(), ps.FTRL(l1=0.01)]
TABLES = {f"t{i}": (optimizer, 3 + 5 * i) for i, optimizer in enumerate(OPTIMIZERS)}
WRITES = 60


class Write:
    """One of the writes of the history: a push to some tables, or a removal."""

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng(number)
        self.number = number
        self.removes = number % 7 == 3
        names = rng.permutation(list(TABLES))[: 1 if self.removes else rng.integers(1, len(TABLES) + 1)].tolist()
        self.ids: list[TableIds] = []
        self.grads: list[Gradients] = []
        for name in names:
            ids_N = rng.permutation(40)[: rng.integers(1, 30)] - 20
            counts_N = rng.integers(1, 5, len(ids_N)).astype(np.uint32)
            self.ids.append(TableIds(name, ids_N.astype(np.int64), counts_N))
            rows = rng.standard_normal((len(ids_N), TABLES[name][1]), np.float32)
            cut = int(rng.integers(0, len(rows)))
            self.grads.append(Gradients(name, [block for block in (rows[:cut], rows[cut:]) if len(block)]))

    def apply(self, shard: Shard, by_step: bool = False) -> None:
        write = WriteId(self.number % 5, self.number, 0)
        if self.removes:
            shard.remove(write, self.ids[0])
            return
        try:
            push(shard, StepRef(0, self.number) if by_step else self.ids, *self.grads, write=write)
        except StepNotFound:
            push(shard, self.ids, *self.grads, write=write)

    def prepare(self, shard: Shard) -> None:
        shard.prepare(StepRef(0, self.number), self.ids)


HISTORY = [Write(number) for number in range(WRITES)]


def result_of(run: Callable[[Shard], None]) -> tuple[list[bytes], int]:
    """Every byte of every table, and the version."""
    shard = Shard(0, ps.ServiceConfig(performance={"max_steps": 8}))
    try:
        for name, (optimizer, dim) in TABLES.items():
            new_table(shard, name, dim, optimizer=optimizer, initializer=ps.Normal())
        run(shard)
        return [array.tobytes() for name in TABLES for array in everything(shard, name)], shard.version
    finally:
        shard.close()


def in_order(shard: Shard) -> None:
    for write in HISTORY:
        write.apply(shard)


@pytest.fixture(scope="module")
def expected() -> tuple[list[bytes], int]:
    return result_of(in_order)


def test_the_history_touches_every_table(expected: tuple[list[bytes], int]) -> None:
    assert expected[1] == len(TABLES) + len(HISTORY)
    assert all(expected[0])


def test_another_order_of_writes_gives_other_bytes(expected: tuple[list[bytes], int]) -> None:
    """So that the equalities below say something."""

    def reordered(shard: Shard) -> None:
        for write in [HISTORY[1], HISTORY[0], *HISTORY[2:]]:
            write.apply(shard)

    assert result_of(reordered)[0] != expected[0]


@pytest.mark.parametrize("seed", range(5))
def test_pulls_and_prepares_in_between_change_nothing(expected: tuple[list[bytes], int], seed: int) -> None:
    """Steps are prepared up to ten writes ahead, some expire, some pushes go by step and some by ids."""

    def run(shard: Shard) -> None:
        chance = random.Random(seed)
        for i, write in enumerate(HISTORY):
            for _ in range(chance.randrange(3)):
                HISTORY[min(i + chance.randrange(10), WRITES - 1)].prepare(shard)
            if chance.random() < 0.5:
                name = chance.choice(list(TABLES))
                read_target(shard, [ids_of(name, [chance.randrange(-30, 30) for _ in range(5)])])
            write.apply(shard, by_step=chance.random() < 0.7)

    assert result_of(run) == expected


@pytest.mark.parametrize("threads", [1, 8])
def test_the_number_of_threads_changes_nothing_when_the_order_is_fixed(
    expected: tuple[list[bytes], int], threads: int
) -> None:
    """Each thread applies its writes when their turn has come; pulls and prepares run whenever they like."""

    def run(shard: Shard) -> None:
        turn, at = threading.Condition(), [0]
        done = threading.Event()
        failures: list[BaseException] = []

        def guarded(work: Callable[[], None]) -> Callable[[], None]:
            def call() -> None:
                try:
                    work()
                except BaseException as error:
                    failures.append(error)
                    done.set()
                    raise

            return call

        def write_every(first: int) -> Callable[[], None]:
            def work() -> None:
                for number in range(first, WRITES, threads):
                    HISTORY[number].prepare(shard)
                    with turn:
                        turn.wait_for(lambda number=number: at[0] == number or done.is_set())
                        HISTORY[number].apply(shard, by_step=number % 2 == 0)
                        at[0] += 1
                        turn.notify_all()

            return work

        def read_on() -> None:
            while not done.is_set():
                read_target(shard, [ids_of("t1", range(-20, 20))])
                HISTORY[at[0] % WRITES].prepare(shard)

        writers = [threading.Thread(target=guarded(write_every(first))) for first in range(threads)]
        reader = threading.Thread(target=guarded(read_on))
        for thread in (*writers, reader):
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        reader.join()
        assert not failures

    assert result_of(run) == expected
