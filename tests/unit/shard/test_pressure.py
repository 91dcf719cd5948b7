"""A shard with room for a few rows in RAM: requests are refused, room is made, and no value is any other for it."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.errors import ResourceExhausted, StepNotFound
from ps.shard import Shard, StepRef
from ps.shard.requests import Target
from ps.storage.budget.slots import SLOT_BYTES
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, push, read

ROOM = 64
"""Slots."""
DEADLINE_S = 20.0


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[Shard]:
    shard = Shard(0, ps.ServiceConfig(disk={"path": tmp_path}, memory={"ram_bytes": ps.config.MIN_RAM_BYTES}))
    row_bytes = DIM * 4 + SLOT_BYTES
    new_table(shard, swap_fraction=0.0)
    shard.budget._resize(ROOM * row_bytes - (shard.budget.for_slots(1) or 0))
    yield shard
    shard.close()


def ones(n: int) -> np.ndarray:
    return np.ones((n, DIM), np.float32)


def retried(call: Callable[[], object]) -> int:
    """As a client does; how many attempts it took."""
    end = time.monotonic() + DEADLINE_S
    for attempt in range(1, 10**6):
        try:
            call()
        except ResourceExhausted as error:
            assert error.retry_after_s is not None
            assert time.monotonic() < end, "no progress"
            time.sleep(0.001)
        else:
            return attempt
    raise AssertionError("unreachable")


def retried_push(shard: Shard, target: Target, n: int) -> int:
    write = a_write()
    return retried(lambda: push(shard, target, grads_of("t", ones(n)), write=write))


def retried_prepare(shard: Shard, step: int, ids: range) -> None:
    """A client would go on without; these tests are about steps that hold rows."""
    retried(lambda: shard.prepare(StepRef(1, step), [ids_of("t", ids)]))


def test_any_push_that_fits_alone_gets_through_whatever_was_there(tight: Shard) -> None:
    rng = np.random.default_rng(0)
    expected: dict[int, int] = {}
    attempts = 0
    for _ in range(150):
        ids = rng.choice(600, rng.integers(1, ROOM + 1), replace=False).tolist()
        attempts += retried_push(tight, [ids_of("t", ids)], len(ids))
        for id_ in ids:
            expected[id_] = expected.get(id_, 0) - 1
    assert attempts > 150, "the room was never short: this test shows nothing"
    table = tight.tables["t"]
    assert len(table) == len(expected) > 5 * ROOM
    assert table.stats()["rows"]["hot"] <= ROOM
    known = sorted(expected)
    for start in range(0, len(known), 50):
        some = known[start : start + 50]
        assert (read(tight, "t", some) == np.array([expected[i] for i in some])[:, None]).all()


def test_prepared_steps_hold_half_of_the_room_at_most_and_a_push_gets_the_rest(tight: Shard) -> None:
    retried_push(tight, [ids_of("t", range(ROOM))], ROOM)
    retried_prepare(tight, 1, range(ROOM // 2))
    with pytest.raises(ResourceExhausted, match="prepared steps hold"):
        tight.prepare(StepRef(1, 2), [ids_of("t", [1000])])
    retried_push(tight, [ids_of("t", range(100, 100 + ROOM // 2))], ROOM // 2)
    tight.pull(StepRef(1, 1)).head()  # is still there


def test_a_push_that_needs_what_steps_hold_takes_it(tight: Shard) -> None:
    """They are hints: their pushes go by ids then."""
    retried_prepare(tight, 1, range(10))
    retried_prepare(tight, 2, range(10, 20))
    retried_push(tight, [ids_of("t", range(20))], 20)
    retried_push(tight, [ids_of("t", range(100, 100 + ROOM - 5))], ROOM - 5)
    with pytest.raises(StepNotFound):
        tight.pull(StepRef(1, 1)).head()
    assert (read(tight, "t", list(range(20))) == -1).all()


def test_rows_that_steps_hold_do_not_keep_better_ones_in_ram(tight: Shard) -> None:
    """Held rows of the lowest rank, and all others of the highest: those must go, or nothing could."""

    def train(ids: range) -> None:
        for start in range(ids.start, ids.stop, 8):  # small: nothing larger is expected again
            retried_push(tight, [ids_of("t", range(start, start + 8))], 8)

    train(range(400))
    for number, start in enumerate(range(0, 32, 8)):
        retried_prepare(tight, number, range(start, start + 8))
    for _ in range(30):
        train(range(1000, 1032))
    train(range(2000, 2200))
    tight.pull(StepRef(1, 0)).head()  # is still there


def test_a_push_that_can_never_fit_gets_no_hint(tight: Shard) -> None:
    with pytest.raises(ResourceExhausted, match="ram_bytes") as refused:
        push(tight, [ids_of("t", range(ROOM + 2))], grads_of("t", ones(ROOM + 2)))
    assert refused.value.retry_after_s is None
    assert len(tight.tables["t"]) == 0


def test_upserts_make_room_as_well(tight: Shard) -> None:
    for start in range(0, 5 * ROOM, 16):
        ids = ids_of("t", range(start, start + 16))
        retried(partial(tight.upsert, a_write(), ids, [ones(16) * start]))
    assert len(tight.tables["t"]) == 5 * ROOM
    assert (read(tight, "t", [3, 4 * ROOM + 5]) == np.array([[0], [4 * ROOM]])).all()


def test_a_refused_push_leaves_no_gradients_behind(tight: Shard) -> None:
    """Not even in a cycle with the error's traceback, which would wait for the collector."""
    for start in range(0, 2000, 40):
        retried_push(tight, [ids_of("t", range(start, start + 40))], 40)
    retried_prepare(tight, 1, range(5000, 5000 + ROOM // 2))
    retried_push(tight, [ids_of("t", range(5000, 5000 + ROOM // 2 - 3))], ROOM // 2 - 3)
    gc.disable()
    try:
        held, refused = [], 0
        for start in range(200, 2000, 40):
            block = ones(40)
            held.append(weakref.ref(block))
            try:
                push(tight, [ids_of("t", range(start, start + 40))], grads_of("t", block))
            except ResourceExhausted:
                refused += 1
        del block
        tight.engine.run(lambda: None)
        assert refused
        assert sum(ref() is not None for ref in held) <= 1
    finally:
        gc.enable()
