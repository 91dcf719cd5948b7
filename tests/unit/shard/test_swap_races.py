"""Rows between RAM and disk while other requests come between: removals, drops, repeats, failures, the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ps
from ps.errors import DiskError, ResourceExhausted, TableNotFound, Unavailable
from ps.kernels.ranking import score
from ps.shard import Shard, StepRef
from ps.shard.upkeep.disk_health import LONGEST_PAUSE_S
from ps.storage.residence.store import Store
from tests.clocks import ByHand
from tests.unit.shard.helpers import DIM, a_write, at_rest, grads_of, ids_of, new_table, none_held, push, push_ids, read
from tests.waiting import busy_engine, until

LIMIT_S = 20.0


@pytest.fixture
def clock() -> ByHand:
    return ByHand()


@pytest.fixture
def disk_shard(tmp_path: Path, clock: ByHand) -> Iterator[Shard]:
    running = Shard(0, ps.ServiceConfig(disk={"path": tmp_path}, performance={"disk_cache_bytes": 1 << 20}), clock)
    yield running
    running.close()


class Held:
    """A call of the disk that waits until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, shard: Shard, table: str, method: str) -> None:
        tier = store_of(shard, table).below.tier
        self.go, self.there = threading.Event(), threading.Event()
        real = getattr(tier, method)

        def waiting(*arguments: Any) -> Any:
            self.there.set()
            assert self.go.wait(LIMIT_S)
            return real(*arguments)

        monkeypatch.setattr(tier, method, waiting)


def store_of(shard: Shard, table: str = "t") -> Store:
    return shard.tables[table].store


def quiet(shard: Shard, table: str = "t") -> None:
    """Waits until nothing is on its way; then nothing is held or open."""
    store = store_of(shard, table)
    until(lambda: shard.engine.post(lambda: at_rest(store)).result())
    assert none_held(store)


def held_rows(shard: Shard) -> int:
    """How many rows in RAM are held."""
    ram = store_of(shard).ram
    return shard.engine.run(lambda: int((ram.marks_S[: ram.slots_end] >= score.PIN).sum()))


def on_disk(shard: Shard, table: str = "t") -> list[int]:
    """Ids that are on disk only, after pushes have moved rows down."""
    quiet(shard, table)
    ids_N = np.arange(20)
    return ids_N[shard.tables[table].find(ids_N) < 0].tolist()


def filled(shard: Shard, name: str = "t") -> list[int]:
    """20 rows of value -1, most of them on disk; those."""
    new_table(shard, name, swap_fraction=0.7)
    push_ids(shard, name, range(20), np.ones((20, DIM)))
    below = on_disk(shard, name)
    assert len(below) > 5
    return below


def demote(shard: Shard, table: str = "t") -> Any:
    """Begins to move down all that may go; `write` and `finish` it."""
    return shard.engine.run(lambda: store_of(shard, table).demote(1 << 40, 1000))


def finish(shard: Shard, demotion: Any, table: str = "t") -> Any:
    return shard.engine.run(lambda: store_of(shard, table).finish(demotion))


def test_a_pull_sees_rows_that_came_up_while_it_waited(disk_shard, monkeypatch):
    below = filled(disk_shard)
    held = Held(monkeypatch, disk_shard, "t", "read")
    stream = disk_shard.pull([ids_of("t", below)])
    assert held.there.wait(LIMIT_S)
    monkeypatch.undo()
    disk_shard.prepare(StepRef(1, 1), [ids_of("t", below)])
    held.go.set()
    stream.head()
    assert (np.concatenate(list(stream)) == -1).all()


def test_a_pull_reads_no_other_rows_after_a_removal(disk_shard, monkeypatch):
    below = filled(disk_shard)
    above = [id_ for id_ in range(20) if id_ not in below]
    held = Held(monkeypatch, disk_shard, "t", "read")
    stream = disk_shard.pull([ids_of("t", [above[0], *below])])
    assert held.there.wait(LIMIT_S)
    monkeypatch.undo()
    disk_shard.remove(a_write(), ids_of("t", above[:1]))
    push_ids(disk_shard, "t", [100], np.full((1, DIM), 5.0))  # takes the slot
    held.go.set()
    stream.head()
    rows_ND = np.concatenate(list(stream)).reshape(-1, DIM)
    assert (rows_ND[0] == 0).all()
    assert (rows_ND[1:] == -1).all()


def test_a_row_stays_until_its_newest_bytes_are_below(disk_shard):
    filled(disk_shard)
    store = store_of(disk_shard)
    fetch = disk_shard.engine.run(lambda: store.fetch(np.arange(20)))  # keeps slots from being freed
    disk_shard.prepare(StepRef(1, 1), [ids_of("t", range(20))])
    push(disk_shard, StepRef(1, 1), grads_of("t", np.ones((20, DIM))))
    until(lambda: disk_shard.engine.run(lambda: store._writing is None))
    push_ids(disk_shard, "t", range(20), np.ones((20, DIM)))  # those on their way down are newer now
    until(lambda: disk_shard.engine.run(lambda: store._writing is None))
    second = demote(disk_shard)
    disk_shard.engine.run(lambda: store.end(fetch))
    assert (read(disk_shard, "t", range(20)) == -3).all()
    if second is not None:
        second.write()
        finish(disk_shard, second)
    assert (read(disk_shard, "t", range(20)) == -3).all()


def test_rows_that_one_push_of_a_step_creates_stay_for_another_that_has_begun(disk_shard):
    """Found by seed 192 of the swap stories: they went down, and the second push wrote to slots of other rows."""
    new_table(disk_shard)
    disk_shard.prepare(StepRef(1, 1), [ids_of("t", range(5))])
    with disk_shard.look_ahead(StepRef(1, 1)) as second:
        second.wait()
        push(disk_shard, StepRef(1, 1), grads_of("t", np.ones((5, DIM))))
        assert held_rows(disk_shard) == 5
        disk_shard.push(a_write(), second, [grads_of("t", np.ones((5, DIM)))])
    assert held_rows(disk_shard) == 0
    assert (read(disk_shard, "t", range(5)) == -2).all()


@pytest.mark.parametrize("how", ["upsert", "assign", "remove"])
def test_a_repeated_write_holds_nothing(disk_shard, how):
    below = filled(disk_shard)
    write, values = a_write(), [] if how == "remove" else [[np.ones((len(below), DIM), np.float32)]]
    for _ in range(2):
        getattr(disk_shard, how)(write, ids_of("t", below), *values)
    push_ids(disk_shard, "t", range(20), np.ones((20, DIM)))
    quiet(disk_shard)


def test_a_prepare_that_has_read_is_not_refused(tmp_path, monkeypatch):
    shard = Shard(
        0,
        ps.ServiceConfig(
            disk={"path": tmp_path}, performance={"disk_cache_bytes": 1 << 20}, limits={"max_requests": 1}
        ),
    )
    below = filled(shard)
    held = Held(monkeypatch, shard, "t", "read")
    versions: list[int] = []
    thread = threading.Thread(target=lambda: versions.append(shard.prepare(StepRef(1, 1), [ids_of("t", below)])))
    thread.start()
    assert held.there.wait(LIMIT_S)
    with busy_engine(shard):
        shard.engine.post(lambda: None)
        with pytest.raises(ResourceExhausted):
            shard.forget(StepRef(1, 9))
        waiting = shard.engine.queue_length
        held.go.set()
        until(lambda: shard.engine.queue_length > waiting or not thread.is_alive())
    thread.join(LIMIT_S)
    assert versions == [2]
    shard.close()


def test_a_table_dropped_while_its_rows_are_read_is_gone(disk_shard, monkeypatch):
    below = filled(disk_shard)
    held = Held(monkeypatch, disk_shard, "t", "read")
    errors: list[BaseException] = []

    def prepare() -> None:
        try:
            disk_shard.prepare(StepRef(1, 1), [ids_of("t", below)])
        except TableNotFound as error:
            errors.append(error)

    thread = threading.Thread(target=prepare)
    thread.start()
    assert held.there.wait(LIMIT_S)
    stream = disk_shard.pull([ids_of("t", range(20))])
    until(lambda: disk_shard.engine.queue_length == 0)
    disk_shard.drop_table("t")
    new_table(disk_shard)
    held.go.set()
    thread.join(LIMIT_S)
    assert [type(error) for error in errors] == [TableNotFound]
    with pytest.raises(TableNotFound):
        stream.head()
    assert (read(disk_shard, "t", range(20)) == 0).all()
    assert len(store_of(disk_shard).below.tier) == 0
    quiet(disk_shard)


def test_a_push_is_applied_once_though_rows_cannot_go_down(disk_shard, monkeypatch):
    new_table(disk_shard, swap_fraction=0.7)

    def full(_: object) -> None:
        raise ResourceExhausted("no memory")

    monkeypatch.setattr(store_of(disk_shard).below, "expect", full)
    for _ in range(2):
        push(disk_shard, [ids_of("t", range(20))], grads_of("t", np.ones((20, DIM))), write=a_write(sequence=10**9))
    assert (read(disk_shard, "t", range(20)) == -1).all()


@pytest.mark.parametrize("error", [DiskError("broken"), MemoryError()])
def test_rows_that_could_not_be_written_stay(clock, disk_shard, monkeypatch, error):
    new_table(disk_shard, swap_fraction=0.7)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(store_of(disk_shard).below.tier, "write", fails)
    push_ids(disk_shard, "t", range(20), np.ones((20, DIM)))
    assert on_disk(disk_shard) == []
    monkeypatch.undo()
    clock.now += LONGEST_PAUSE_S
    push_ids(disk_shard, "t", range(20), np.ones((20, DIM)))
    assert on_disk(disk_shard)
    assert (read(disk_shard, "t", range(20)) == -2).all()


def test_a_push_that_comes_while_the_shard_stops_ends(disk_shard):
    below = filled(disk_shard)
    disk_shard.engine.places.io.shutdown()  # what close does first
    ahead = disk_shard.look_ahead([ids_of("t", below)])
    ahead.wait()
    ahead.close()
    stream = disk_shard.pull([ids_of("t", below)])
    with pytest.raises(Unavailable):
        stream.head()


def test_a_step_whose_lease_has_ended_holds_nothing_after_the_next_push(tmp_path):
    clock = ByHand()
    shard = Shard(0, ps.ServiceConfig(disk={"path": tmp_path}, performance={"disk_cache_bytes": 1 << 20}), clock)
    filled(shard)
    shard.prepare(StepRef(1, 1), [ids_of("t", range(20))])
    clock.now += 1e6
    push_ids(shard, "t", [0], np.ones((1, DIM)))
    assert shard.stats()["steps_held"] == 0
    quiet(shard)
    shard.close()


def test_a_pull_does_not_wait_for_rows_that_go_down(disk_shard, monkeypatch):
    """However many tables write below at once."""
    names = [f"t{number}" for number in range(6)]
    for name in names:
        new_table(disk_shard, name, swap_fraction=0.9)
        push_ids(disk_shard, name, range(40), np.ones((40, DIM)))
    for name in names:
        quiet(disk_shard, name)
    below = on_disk(disk_shard, names[0])
    held = [Held(monkeypatch, disk_shard, name, "write") for name in names]
    try:
        for name in names:
            push_ids(disk_shard, name, range(100, 400), np.ones((300, DIM)))
        assert held[0].there.wait(LIMIT_S)
        with ThreadPoolExecutor(1) as pool:
            pulled = pool.submit(read, disk_shard, names[0], below[:1])
            assert pulled.result(LIMIT_S / 2).tolist() == [[-1.0] * DIM], "while they are held"
    finally:
        for each in held:
            each.go.set()
    for name in names:
        quiet(disk_shard, name)
