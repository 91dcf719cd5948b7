"""A shard that was saved and restored is the same shard, and stays so whatever both are told afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

import ps
from ps.errors import ResourceExhausted, TableNotFound
from ps.shard import Shard, TableIds
from ps.table.cold.tensor_train import TensorTrainCold
from tests.unit.durability.memory import UnderWay, again, check_same, check_tiers, contents, saved, whole
from tests.unit.shard.helpers import a_write, grads_of, push
from tests.unit.shard.histories import History, answers, held, replayed
from tests.unit.shard.test_replay import CHECKS, DIM, KEPT, TABLES, ReplayMachine, gradients
from tests.waiting import until


class StateMachine(ReplayMachine):
    """Whatever is done to a shard before a checkpoint begins, while it is taken slice by slice, and afterwards: what is
    saved is what one that nothing interrupts saves, and with the log it makes the same shard."""

    under_way: UnderWay | None = None

    @precondition(lambda self: self.under_way is None)
    @rule()
    def save(self) -> None:
        self.at = len(self.history.records)
        self.then = whole(self.shard), held(self.shard), answers(self.shard, self.writes), list(self.writes)
        self.at_once = saved(self.shard)
        self.under_way = UnderWay(self.shard)
        self.under_way.begin()

    @precondition(lambda self: self.under_way is not None)
    @rule(n=st.integers(1, 4))
    def take(self, n: int) -> None:
        assert self.under_way is not None
        self.tell(partial(self.under_way.stretches, n))

    def tell(self, what: Callable[[], object]) -> None:
        """Goes on with the checkpoint. It fails where a table was dropped since the cut, and another one begins."""
        try:
            what()
        except TableNotFound:
            assert self.folder is None or not (self.folder / "first" / "shard-0" / "copy").exists()
            self.under_way = None

    def teardown(self) -> None:
        try:
            if self.under_way is not None:
                self.tell(self.under_way.finish)
            if self.under_way is None:
                self.save()
            assert self.under_way is not None
            copy = self.under_way.finish()
            if self.folder is None:  # else rows go down between the two
                check_same(contents(copy), contents(self.at_once))
            with again(copy, self.config("second")) as second:
                all_then, held_then, answers_then, writes_then = self.then
                check_same(whole(second), all_then)
                check_same(held(second), held_then)
                check_tiers(second)
                assert answers(second, writes_then) == answers_then
                replayed(self.history.records[self.at :], second)
                self.check_same(second)
                self.go_on(second)
                self.check_same(second)
                check_tiers(second)
                check_tiers(self.shard)
        finally:
            self.shard.close()

    def check_same(self, second: Shard) -> None:
        check_same(whole(second), whole(self.shard))
        check_same(held(second), held(self.shard))
        assert answers(second, self.writes) == answers(self.shard, self.writes)

    def go_on(self, second: Shard) -> None:
        """Both are asked to do the same, and answer the same."""
        rng = np.random.default_rng(len(self.history.records))
        for _ in range(3):
            target, grads = zip(*(gradients(name, rng) for name in second.tables), strict=True)
            write = self.write()
            first, other = (push(shard, target, *grads, write=write) for shard in (self.shard, second))
            assert first == other


FEW = settings(max_examples=2, stateful_step_count=25, deadline=None)
MANY = settings(max_examples=30, stateful_step_count=50, deadline=None)


def test_a_saved_shard_and_its_log_make_the_same_shard() -> None:
    run_state_machine_as_test(StateMachine, settings=settings(FEW, suppress_health_check=CHECKS))


def in_the_middle(shard: Shard) -> bool:
    """Whether an epoch has begun and not ended, and rows wait to be folded."""
    cold = shard.tables["tt"].cold
    assert isinstance(cold, TensorTrainCold)
    return bool(shard.tables["old"].ranking._epoch_pushes and len(cold._leaving_N))


def test_every_kind_of_table_goes_on_as_it_was() -> None:
    """A long story: all kinds of decisions have been made when the shard is saved, and are made afterwards."""
    machine = StateMachine()
    machine.tables()
    machine.shard.create_table(ps.TableConfig(name="old", dim=DIM, expire_after_pushes=32))
    for step in range(60):
        if machine.under_way is None and step > 11 and in_the_middle(machine.shard):
            machine.save()
        elif machine.under_way is not None:
            machine.take(1)
        if step == 10:
            machine.upsert("old", [100, 101], step)  # nobody touches them again
        machine.push([*TABLES, "old"], step % 3 + 1, step)
        machine.push_of_a_round(KEPT[step % 3], step)
        if step % 4 == 0:
            machine.upsert(KEPT[step % 3], [step % 40, 39], step)
            machine.report(KEPT[step % 3], [step % 40, 1, 2, 3], step)
            machine.remove(KEPT[step % 3], [step % 40, 5])
    assert machine.under_way is not None
    assert machine.under_way.stretched > 15, "most of it was done between writes"
    assert machine.at < 0.7 * len(machine.history.records)
    counts = {name: asdict(table.counts) for name, table in machine.shard.tables.items()}
    machine.teardown()
    assert min(counts["adam"][name] for name in ("rows_evicted", "rows_refused")) > 0
    assert min(counts["fp16"][name] for name in ("rows_narrowed", "rows_widened")) > 0
    assert min(counts["tt"][name] for name in ("rows_in_cores", "rows_folded", "rows_kept")) > 0
    assert min(counts["lots"]["rows_refused"], counts["old"]["rows_expired"]) > 0


@pytest.mark.slow
def test_many_saved_shards_and_their_logs_make_the_same_shards() -> None:
    run_state_machine_as_test(StateMachine, settings=settings(MANY, suppress_health_check=CHECKS))


@pytest.mark.slow
def test_a_saved_shard_with_a_disk_and_its_log_make_the_same_shard(tmp_path: Path) -> None:
    def on_disk() -> StateMachine:
        return StateMachine(Path(mkdtemp(dir=tmp_path)))

    run_state_machine_as_test(on_disk, settings=settings(MANY, max_examples=8, suppress_health_check=CHECKS))


BIG = 512
"""The dim of tables that find little room: a row takes 6 KB."""
ROOMS: dict[str, dict[str, Any]] = {
    "evicted from RAM": {"memory": {"ram_bytes": 64 << 20}},
    "evicted from the disk": {"disk": {"max_bytes": 8 << 20}},
    "on disk for want of RAM": {"memory": {"ram_bytes": 64 << 20}, "disk": {}},
}


def in_room(room: str, folder: Path) -> ps.ServiceConfig:
    parts = {name: dict(part) for name, part in ROOMS[room].items()}
    if "disk" in parts:
        parts["disk"]["path"] = folder
    return ps.ServiceConfig(watching={"metrics": False}, **parts)


def insisting(task: Callable[[], object]) -> None:
    """Does what needs room, again and again while the shard makes it."""

    def done() -> bool:
        try:
            task()
        except ResourceExhausted as error:
            if error.retry_after_s is None:
                raise
            return False
        return True

    until(done)


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_rows_that_find_little_room_come_back(room: str, tmp_path: Path) -> None:
    """More rows come than fit: they are evicted, or go to disk, before the shard is saved and afterwards."""
    rng, history = np.random.default_rng(0), History()
    shard = Shard(0, in_room(room, tmp_path / "first"), history=history)
    try:
        for name, cold in (("a", None), ("b", ps.Fp16(hot_fraction=0.3))):
            shard.create_table(ps.TableConfig(name=name, dim=BIG, optimizer=ps.Adam(lr=0.1), cold=cold))
        copy, at = None, 0
        for step in range(14):
            if step == 7:
                copy, at = saved(shard), len(history.records)
            for name in "ab":
                ids_N = np.unique((12_000 * rng.random(400) ** 2).astype(np.int64))
                rows_ND = rng.standard_normal((len(ids_N), BIG), np.float32)
                insisting(lambda: push(shard, [TableIds(name, ids_N)], grads_of(name, rows_ND), write=a_write()))  # noqa: B023
        assert copy is not None
        with again(copy, in_room(room, tmp_path / "second")) as second:
            for record in history.records[at:]:
                insisting(lambda: replayed([record], second))  # noqa: B023  it is done at once
            check_same(whole(second), whole(shard))
            evicted = sum(table.counts.rows_evicted for table in shard.tables.values())
            assert bool(evicted) == room.startswith("evicted")
    finally:
        shard.close()
