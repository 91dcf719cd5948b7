"""A write is applied once, whatever fails behind it, and not at all where something fails before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.errors import DiskError
from ps.policy.admission import OpenGate
from ps.policy.ranking import Ranking
from ps.round import Round
from ps.shard import Shard, StepRef, TableIds
from ps.shard.ledger import Ledger, WriteId
from ps.shard.steps.steps import Steps
from ps.shard.upkeep.capacity import Capacity
from ps.shard.upkeep.maintenance import Maintenance
from ps.storage.disk.tier import DiskTier
from ps.storage.residence.demotion import Demotion
from ps.storage.residence.dropped import Dropped
from ps.storage.residence.store import Store
from ps.table.clock import Clock
from ps.table.cold.cold import Cold
from ps.table.write import Writes
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, push, push_ids, read
from tests.waiting import until

IDS = range(6)
ONES = np.ones((len(IDS), DIM), np.float32)
SEVENS = np.full((len(IDS), DIM), 7, np.float32)


def new_shard(folder: Path) -> Shard:
    shard = Shard(0, ps.ServiceConfig(disk={"path": folder, "max_bytes": 1 << 30}, watching={"metrics": False}))
    importance = ps.Importance(frequency=1, external=1)
    new_table(shard, importance=importance, max_rows_per_shard=100, expire_after_pushes=1000, half_life_pushes=64)
    push_ids(shard, "t", IDS, ONES)
    return shard


def by_ids(shard: Shard, write: WriteId) -> object:
    return push(shard, [ids_of("t", IDS)], grads_of("t", ONES), write=write)


def by_step(shard: Shard, write: WriteId) -> object:
    return push(shard, StepRef(1, write.sequence), grads_of("t", ONES), write=write)


def in_round(shard: Shard, write: WriteId) -> object:
    with shard.look_ahead([ids_of("t", IDS)]) as ahead:
        return shard.rounds.join(Round("g", 1, 0, 1), 10, write, ahead, [grads_of("t", ONES)]).outcome.result()


def upserted(shard: Shard, write: WriteId) -> object:
    return shard.upsert(write, ids_of("t", [*IDS, 50]), [SEVENS, SEVENS[:1]])


def assigned(shard: Shard, write: WriteId) -> object:
    return shard.assign(write, ids_of("t", IDS), [SEVENS])


def removed(shard: Shard, write: WriteId) -> object:
    return shard.remove(write, ids_of("t", IDS))


def reported(shard: Shard, write: WriteId) -> object:
    return shard.report_importance(write, ids_of("t", IDS), np.ones(len(IDS), np.float32))


Do = Callable[[Shard, WriteId], object]
PUSHES: list[Do] = [by_ids, by_step, in_round]
WRITES: list[Do] = [*PUSHES, upserted, assigned, removed, reported]
BEHIND = [
    (Cold, "pushed"),
    (Ranking, "advance"),
    (Cold, "tick"),
    (Store, "drop"),
    (Clock, "surplus"),
    (OpenGate, "tick"),
    (Cold, "sweep"),
    (Dropped, "sweep"),
    (Store, "purge"),
    (Steps, "finish"),
    (Capacity, "too_many"),
    (Maintenance, "run"),
]
"""What a shard does after a write, for any of them."""


def breaking(what: type[Exception] = MemoryError) -> Callable[..., None]:
    def broken(*_: object, **__: object) -> None:
        raise what("injected")

    return broken


def written(shard: Shard) -> list[object]:
    """Ids and values, wherever the rows are."""
    page = shard.export_page("t", 0, 1000)
    order_N = np.argsort(page.ids_N)
    return [page.ids_N[order_N].tolist(), page.values_ND[order_N].tolist()]


@pytest.mark.parametrize("broken", BEHIND, ids=lambda broken: ".".join([broken[0].__name__, broken[1]]))
def test_a_write_stands_and_is_known_when_what_follows_it_fails(tmp_path: Path, broken: tuple[type, str]) -> None:
    shard, well = new_shard(tmp_path / "a"), new_shard(tmp_path / "b")
    for repeats, do in enumerate(WRITES, 1):
        write = a_write()
        for each in (shard, well):
            each.prepare(StepRef(1, write.sequence), [ids_of("t", IDS)])
        do(well, write)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*broken, breaking())
            first = do(shard, write)
        assert written(shard) == written(well), do.__name__
        again = do(shard, write)
        assert shard.commit.repeats == repeats, do.__name__
        assert again == (replace(first, repeated=True) if do in PUSHES else first)
        assert written(shard) == written(well), do.__name__
    shard.close()
    well.close()


def test_a_shard_says_what_fails_behind_its_writes(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    new_table(shard, max_rows_per_shard=10)
    monkeypatch.setattr(Clock, "surplus", breaking(ZeroDivisionError))
    push_ids(shard, "t", IDS, ONES)
    stats = shard.stats()
    assert stats["degraded"] == "eviction failed after a write, which stands: ZeroDivisionError: injected"
    assert stats["failures_after_writes"] == 1
    monkeypatch.undo()
    push_ids(shard, "t", IDS, ONES)
    assert (read(shard, "t", IDS) == -2).all()
    assert shard.stats()["degraded"] is None


def test_what_fails_after_rows_have_gone_down_is_said_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On no thread that anybody asks: the moves to disk that follow those of a write."""
    shard = Shard(0, ps.ServiceConfig(disk={"path": tmp_path}, watching={"metrics": False}))
    new_table(shard, swap_fraction=0.9)
    real, failing = Store.finish, True

    def finish(store: Store, written: Demotion) -> object:
        error = real(store, written)
        if failing:
            raise ZeroDivisionError("injected")
        return error

    monkeypatch.setattr(Store, "finish", finish)
    push_ids(shard, "t", range(2000), np.ones((2000, DIM)))
    until(lambda: shard.stats()["failures_after_writes"] == 1)
    expected = "maintenance failed after a write, which stands: ZeroDivisionError: injected"
    assert shard.stats()["degraded"] == expected
    failing = False
    push_ids(shard, "t", IDS, ONES)
    assert shard.stats()["degraded"] is None
    shard.close()


def test_what_fails_about_a_table_is_no_worry_once_it_is_dropped(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("t", "t2"):
        new_table(shard, name)
    monkeypatch.setattr(OpenGate, "tick", breaking())
    for name in ("t", "t2"):
        push_ids(shard, name, IDS, ONES)
    shard.drop_table("t")
    assert str(shard.stats()["degraded"]).startswith("table 't2'")
    shard.drop_table("t2")
    assert shard.stats()["degraded"] is None


def two_tables(shard: Shard) -> Callable[[WriteId], object]:
    for name in "ab":
        new_table(shard, name)
        push_ids(shard, name, IDS, ONES)
    targets = [TableIds(name, np.arange(8)) for name in "ab"]  # two of them are new
    both = [grads_of(name, np.ones((8, DIM))) for name in "ab"]
    return lambda write: push(shard, targets, *both, write=write)


@pytest.mark.parametrize("broken", [(Ledger, "_add"), (Writes, "plan_push")], ids=["record", "plan"])
def test_what_fails_before_leaves_nothing_of_any_table(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, broken: tuple[type, str]
) -> None:
    push_both, write = two_tables(shard), a_write()
    version, plain, calls = shard.version, getattr(*broken), []

    def second_fails(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2 or broken[0] is Ledger:
            raise MemoryError("injected")
        return plain(*arguments)

    monkeypatch.setattr(*broken, second_fails)
    with pytest.raises(MemoryError):
        push_both(write)
    monkeypatch.undo()
    assert shard.version == version
    assert [len(table) for table in shard.tables.values()] == [6, 6]
    assert not shard.core.ledger.answer(write)
    push_both(write)
    assert (read(shard, "a", IDS) == -2).all()
    assert (read(shard, "b", IDS) == -2).all()
    assert [len(table) for table in shard.tables.values()] == [8, 8]


@pytest.mark.parametrize("do", [upserted, assigned, removed, reported], ids=lambda do: do.__name__)
def test_an_explicit_write_that_cannot_be_recorded_is_not_applied(
    tmp_path: Path, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, write = new_shard(tmp_path), a_write()
    before = written(shard)
    monkeypatch.setattr(Ledger, "_add", breaking())
    with pytest.raises(MemoryError):
        do(shard, write)
    monkeypatch.undo()
    assert written(shard) == before
    do(shard, write)
    assert shard.commit.repeats == 0
    shard.close()


def test_a_removal_that_the_disk_refuses_has_changed_nothing_and_passes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = Shard(0, ps.ServiceConfig(disk={"path": tmp_path}, watching={"metrics": False}))
    new_table(shard, swap_fraction=0.9)
    push_ids(shard, "t", range(40), [[i] * DIM for i in range(40)])
    table = shard.tables["t"]
    until(lambda: len(table.ram) < 10)
    write, all_ = a_write(), ids_of("t", range(40))
    monkeypatch.setattr(DiskTier, "discard", breaking(DiskError))
    with pytest.raises(DiskError):
        shard.remove(write, all_)
    monkeypatch.undo()
    assert read(shard, "t", range(40))[:, 0].tolist() == [-i for i in range(40)]
    push_ids(shard, "t", [0], np.ones((1, DIM)))
    until(lambda: len(table.ram) < 10)  # what was to go may go down again
    assert read(shard, "t", range(40))[:, 0].tolist() == [-1, *(-i for i in range(1, 40))]
    assert shard.remove(write, all_).existed_N.all()
    assert (read(shard, "t", range(40)) == 0).all()
    shard.close()
