"""A checkpoint is of one version whatever is written while it is taken, takes bounded memory, and lets go of all that
it holds where it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import ps
from ps.durability.checkpoint.load import load_rows
from ps.durability.state import checkpoint
from ps.errors import ResourceExhausted, ShardPoisoned, TableNotFound, Unavailable
from ps.kept import KeptState
from ps.kernels.ranking import score
from ps.shard import Shard, cut
from ps.shard.upkeep.saves import Saves
from ps.storage.disk.database import Disk
from ps.storage.ram.saving import Saved
from ps.storage.residence.demotion import Demotion
from ps.storage.tier import Records
from ps.table.cold.fp16 import SWEEP_SLOTS, Fp16Cold
from ps.table.cold.tensor_train import TensorTrainCold
from tests.conftest import QUIET
from tests.unit.durability.memory import InMemory, UnderWay, again, check_same, contents, saved, whole
from tests.unit.shard.helpers import DIM, a_write, ids_of, new_table, push, push_ids, read
from tests.waiting import until

N = 200
EVERYTHING = list(range(N))


@contextmanager
def a_shard(config: ps.ServiceConfig = QUIET, **table: Any) -> Iterator[Shard]:
    """With a table that has rows, to which a push was made."""
    shard = Shard(0, config)
    try:
        new_table(shard, **table)
        push_ids(shard, "t", EVERYTHING, np.random.default_rng(0).standard_normal((N, DIM)))
        yield shard
    finally:
        shard.close()


def pushed(shard: Shard) -> None:
    push_ids(shard, "t", EVERYTHING, np.ones((N, DIM)))


def some_pushed(shard: Shard) -> None:
    """Rows that a push names and does not update change too: they are used."""
    gradients = ps.shard.Gradients("t", [np.ones((1, DIM), np.float32)], None, np.array([7]), N)
    push(shard, [ids_of("t", EVERYTHING)], gradients)


def upserted(shard: Shard) -> None:
    shard.upsert(a_write(), ids_of("t", range(N + 50)), [np.ones((N + 50, DIM), np.float32)])


def assigned(shard: Shard) -> None:
    shard.assign(a_write(), ids_of("t", EVERYTHING), [np.ones((N, DIM), np.float32)])


def reported(shard: Shard) -> None:
    shard.report_importance(a_write(), ids_of("t", EVERYTHING), np.ones(N, np.float32))


def removed(shard: Shard) -> None:
    shard.remove(a_write(), ids_of("t", EVERYTHING))


def removed_and_new(shard: Shard) -> None:
    removed(shard)
    pushed(shard)


def dropped_at_once(shard: Shard) -> None:
    """And the slots are freed."""
    table = shard.tables["t"]
    shard.engine.run(lambda: table.clock.plan_eviction(20).carry_out())
    shard.engine.run(table.store.dropped.finish)
    assert len(table.ram) < 30


def shrunk(shard: Shard) -> None:
    """Rows move to other slots, and are written to there."""
    shard.remove(a_write(), ids_of("t", range(0, N, 2)))
    table = shard.tables["t"]
    shard.engine.run(lambda: table.store.shrink(N // 2 + 10, True))
    push_ids(shard, "t", range(1, N, 4), np.ones((N // 4, DIM)))


def loaded(shard: Shard) -> None:
    """Whole rows, by a restore into a table that has some of them."""
    config = shard.tables["t"].config
    width = DIM + config.optimizer.state_width(DIM)
    load_rows(shard, ids_of("t", range(N + 50)), np.ones((N + 50, width), np.float32), np.ones(N + 50, np.float32))


def values_loaded(shard: Shard) -> None:
    load_rows(shard, ids_of("t", range(N + 50)), np.ones((N + 50, DIM), np.float32), np.ones(N + 50, np.float32))


CHANGES = [pushed, some_pushed, upserted, assigned, reported, removed, removed_and_new, dropped_at_once, shrunk]
CHANGES += [loaded, values_loaded]


@pytest.mark.parametrize("device", ["cpu", "torch-cpu"])
@pytest.mark.parametrize("slices", [0, 9])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_written_meanwhile_is_not_saved(change: Callable[[Shard], None], slices: int, device: str) -> None:
    """Wherever the slices have come to."""
    importance = ps.Importance(frequency=1, external=1)
    with a_shard(optimizer=ps.Adagrad(lr=0.1), max_rows_per_shard=2 * N, importance=importance, device=device) as shard:
        at_once, taken = saved(shard), UnderWay(shard)
        taken.begin()
        taken.stretches(2 * slices)
        change(shard)
        check_same(contents(taken.finish()), contents(at_once))
        with again(saved(shard), QUIET) as other:
            check_same(whole(other), whole(shard))


def test_rows_that_become_half_precision_meanwhile_are_saved_as_they_were() -> None:
    with a_shard(cold=ps.Fp16(hot_fraction=0.1), half_life_pushes=64) as shard:
        cold = shard.tables["t"].cold
        assert isinstance(cold, Fp16Cold)
        cold.sweep_slots = 0
        push_ids(shard, "t", range(N, 2 * N), np.random.default_rng(1).standard_normal((N, DIM)))
        push_ids(shard, "t", [0], np.ones((1, DIM)))
        cold.sweep_slots = SWEEP_SLOTS
        at_once, taken = saved(shard), UnderWay(shard)
        taken.begin()
        before = shard.tables["t"].counts.rows_narrowed
        while shard.engine.run(cold.sweep):
            pass
        assert shard.tables["t"].counts.rows_narrowed > before
        check_same(contents(taken.finish()), contents(at_once))


def test_rows_that_go_back_into_cores_meanwhile_are_saved_as_they_were() -> None:
    """And with what was said of them: those that are kept exact are not on the way to the cores any more."""
    tt = ps.TensorTrain(rows=N, ranks=2, hot_rows=20, lift_after=1, fold_tolerance=0.5, optimizer=ps.Adagrad(lr=0.2))
    uniform, sgd = ps.Uniform(low=-0.1, high=0.1), ps.SGD(lr=0.1)
    with a_shard(cold=tt, half_life_pushes=64, initializer=uniform, optimizer=sgd) as shard:
        table = shard.tables["t"]
        assert isinstance(table.cold, TensorTrainCold)
        rng = np.random.default_rng(1)

        def go_on() -> None:
            ids_N = rng.permutation(N)[:40]
            push_ids(shard, "t", ids_N, rng.standard_normal((40, DIM)))

        while not len(table.cold._leaving_N):
            go_on()
        at_once, taken = saved(shard), UnderWay(shard)
        taken.begin()
        folded, kept = table.counts.rows_folded, table.counts.rows_kept
        for _ in range(20):
            go_on()
        assert table.counts.rows_folded > folded
        assert table.counts.rows_kept > kept
        check_same(contents(taken.finish()), contents(at_once))


def test_rows_that_were_dropped_before_and_have_slots_still_are_left_out() -> None:
    with a_shard(max_rows_per_shard=2 * N) as shard:
        table = shard.tables["t"]
        shard.engine.run(lambda: table.clock.plan_eviction(20).carry_out())
        assert table.store.dropped.pending
        rows = saved(shard).rows("t")
        assert sum(len(records) for records, _ in rows) == len(table) < 30


# slices


class Sliced(InMemory):
    """Notes the bytes of each slice, and looks at what waits while it takes one."""

    def __init__(self, shard: Shard, others: int = 0) -> None:
        """`others`: how many tasks of others the engine gets while this takes a slice."""
        super().__init__()
        self.nbytes: list[int] = []
        self.waiting: list[tuple[int, int]] = []
        self._shard, self._others = shard, others

    def take_rows(self, table: str, records: Records, marks_N: npt.NDArray[np.uint16]) -> None:
        super().take_rows(table, records, marks_N)
        self.nbytes.append(Saved(table, records, marks_N).nbytes)
        for _ in range(self._others):
            self._shard.engine.run(lambda: None)
        waiting = self._shard.core.saves.waiting
        assert waiting is not None
        self.waiting.append(self._shard.engine.look(lambda: (waiting.nbytes, waiting.untaken)).result())


@contextmanager
def many_slices(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shard]:
    """A shard with rows for about 70 slices of 4 KiB."""
    monkeypatch.setattr(cut, "SLICE_BYTES", 4 << 10)
    monkeypatch.setattr(cut, "LARGE_BYTES", 16 << 10)
    shard = Shard(0, QUIET)
    try:
        new_table(shard, dim=64)
        push_ids(shard, "t", range(1000), np.ones((1000, 64)))
        yield shard
    finally:
        shard.close()


def test_the_engine_copies_one_slice_while_the_last_one_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with many_slices(monkeypatch) as shard:
        sink = Sliced(shard, others=1)  # a task behind the copying: when it is done, that is
        checkpoint(shard, sink)
        both = [one + other for one, other in pairwise(sink.nbytes)] + [sink.nbytes[-1]]
        assert sink.waiting == [(nbytes, 0) for nbytes in both]


def test_slices_are_large_where_nobody_else_uses_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = 4 << 10, 16 << 10
    with many_slices(monkeypatch) as shard:
        alone, beside = Sliced(shard), Sliced(shard, others=1)
        checkpoint(shard, alone)
        checkpoint(shard, beside)
        assert max(alone.nbytes[: cut.CALM - 1]) < small * 1.1
        assert large * 0.9 < max(alone.nbytes) < large * 1.1
        assert max(beside.nbytes) < small * 1.1
        check_same(contents(alone), contents(beside))


# bounds


ROOM = QUIET.having(memory={"ram_bytes": 64 << 20})
LIMIT = (64 << 20) // 32


class Stalled(InMemory):
    """Looks at what waits while the sink writes."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] = lambda: None

    def take_rows(self, table: str, records: Records, marks_N: npt.NDArray[np.uint16]) -> None:
        super().take_rows(table, records, marks_N)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()


def test_writes_are_refused_where_too_much_waits_and_none_after_it() -> None:
    """Reads go on, and what is saved is right."""
    n, dim, write = 40_000, 64, 2_000
    shard, sink, refused = Shard(0, ROOM), Stalled(), 0
    try:
        new_table(shard, dim=dim)
        for start in range(0, n, 4000):
            push_ids(shard, "t", range(start, start + 4000), np.ones((4000, dim)))
        at_once, held = saved(shard), shard.budget.bodies.used
        waiting: list[int] = []

        def meanwhile() -> None:
            nonlocal refused
            for start in range(0, n, write):
                try:
                    push_ids(shard, "t", range(start, start + write), np.ones((write, dim)))
                except ResourceExhausted as error:
                    assert error.retry_after_s is not None
                    assert "checkpoint" in str(error)
                    refused += 1
            assert shard.core.saves.waiting is not None
            waiting.append(shard.core.saves.waiting.most)
            assert read(shard, "t", [0]).shape == (1, dim)
            assert shard.budget.bodies.used >= LIMIT + 2 * n

        sink.meanwhile = meanwhile
        checkpoint(shard, sink)
        check_same(contents(sink), contents(at_once))
        assert refused
        assert LIMIT <= waiting[0] <= LIMIT + write * (4 * dim + 18) + LIMIT // cut.SHARE
        assert shard.budget.bodies.used == held == 0
        push_ids(shard, "t", range(write), np.ones((write, dim)))
        alone = Sliced(shard)
        checkpoint(shard, alone)
        assert max(alone.nbytes) < 1.1 * LIMIT // cut.SHARE
    finally:
        shard.close()


def test_a_checkpoint_for_which_there_is_no_room_says_so() -> None:
    with a_shard(ROOM) as shard:
        shard.budget.bodies.hold(15 << 20)
        with pytest.raises(ResourceExhausted, match=r"memory\.ram_bytes"):
            saved(shard)
        shard.budget.bodies.give(15 << 20)
        saved(shard)


# failures


class Failing(InMemory):
    """Fails at the nth call."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def call(self) -> None:
        self.left -= 1
        if not self.left:
            raise OSError("no room on the other side")

    def take_state(self, version: int, state: KeptState) -> None:
        self.call()
        super().take_state(version, state)

    def take_rows(self, table: str, records: Records, marks_N: npt.NDArray[np.uint16]) -> None:
        self.call()
        super().take_rows(table, records, marks_N)

    def take_disk(self, folder: Path) -> None:
        self.call()
        super().take_disk(folder)


def check_let_go(shard: Shard, folder: Path | None = None) -> None:
    """Nothing of a checkpoint is left, and the shard goes on."""
    assert shard.core.saves.waiting is None
    assert all(table.ram.saving is None for table in shard.tables.values())
    assert shard.budget.bodies.used == 0
    if folder is not None:
        assert sorted(file.name for file in folder.iterdir()) == ["EMBEDDING_PS", "rocksdb"]
    push_ids(shard, "t", EVERYTHING, np.ones((N, DIM)))


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_sink_that_fails_at_any_call_leaves_nothing_behind(tmp_path: Path, on_disk: bool) -> None:
    config = QUIET.having(disk={"path": tmp_path}) if on_disk else QUIET
    folder = tmp_path / "shard-0" if on_disk else None
    with a_shard(config, max_rows_per_shard=2 * N, swap_fraction=0) as shard:  # rows stay: each time as many slices
        sink = Failing(0)
        UnderWay(shard, sink=sink).finish()
        calls = -sink.left
        assert calls > 10
        for at in (1, 2, 3, calls - 1, calls):
            with pytest.raises(OSError, match="other side"):
                UnderWay(shard, sink=Failing(at)).finish()
            check_let_go(shard, folder)
        UnderWay(shard, sink=Failing(calls + 1)).finish()
        check_let_go(shard, folder)
        with again(saved(shard), QUIET if not on_disk else QUIET.having(disk={"path": tmp_path / "other"})) as other:
            check_same(whole(other), whole(shard))


def test_a_checkpoint_that_is_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    with a_shard(QUIET.having(disk={"path": tmp_path}), max_rows_per_shard=2 * N) as shard:
        for stretches in range(1, 12):
            taken = UnderWay(shard)
            taken.stretches(stretches)
            taken.close()
            check_let_go(shard, tmp_path / "shard-0")


def test_a_table_that_is_dropped_meanwhile_fails_the_checkpoint_and_no_other() -> None:
    with a_shard() as shard:
        new_table(shard, "u")
        push_ids(shard, "u", EVERYTHING, np.ones((N, DIM)))
        taken = UnderWay(shard)
        taken.begin()
        shard.drop_table("u")
        with pytest.raises(TableNotFound, match="take it again"):
            taken.finish()
        check_let_go(shard)
        with again(saved(shard), QUIET) as other:
            check_same(whole(other), whole(shard))


def test_a_table_that_is_created_meanwhile_is_not_in_it() -> None:
    with a_shard() as shard:
        at_once, taken = saved(shard), UnderWay(shard)
        taken.begin()
        new_table(shard, "u")
        push_ids(shard, "u", EVERYTHING, np.ones((N, DIM)))
        check_same(contents(taken.finish()), contents(at_once))


def test_a_shard_that_is_poisoned_meanwhile_fails_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("no")

    with a_shard() as shard:
        taken = UnderWay(shard)
        taken.begin()
        monkeypatch.setattr(shard.core.ledger, "record", fails)
        with pytest.raises(ShardPoisoned):
            pushed(shard)
        with pytest.raises(ShardPoisoned):
            taken.finish()
        assert shard.budget.bodies.used == 0


def test_a_shard_that_is_closed_meanwhile_fails_the_checkpoint() -> None:
    sink = Stalled()
    with a_shard() as shard:
        sink.meanwhile = shard.close
        with pytest.raises(Unavailable, match="stopping"):
            checkpoint(shard, sink)
        assert shard.budget.bodies.used == 0


def test_there_is_one_checkpoint_at_a_time() -> None:
    with a_shard() as shard:
        taken = UnderWay(shard)
        taken.begin()
        with pytest.raises(ResourceExhausted, match="under way") as refused:
            saved(shard)
        assert refused.value.retry_after_s
        taken.finish()
        saved(shard)


def test_rows_that_cannot_be_copied_fail_the_checkpoint_and_not_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(_: object) -> None:
        raise MemoryError("none left")

    with a_shard() as shard:
        taken = UnderWay(shard)
        taken.begin()
        rows = shard.tables["t"].ram.rows
        monkeypatch.setattr(rows, "copies", no_memory)
        pushed(shard)
        with pytest.raises(MemoryError):
            taken.finish()
        monkeypatch.undo()
        check_let_go(shard)


# the disk


def test_what_a_killed_process_has_left_of_a_checkpoint_is_removed_at_the_start(tmp_path: Path) -> None:
    Disk(tmp_path, cache_bytes=1 << 20).close()
    for name in ("copy", "copy.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000012.sst").write_bytes(b"some")
    Disk(tmp_path, cache_bytes=1 << 20, fresh=False).close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["EMBEDDING_PS", "rocksdb"]


def test_writes_that_go_down_when_the_cut_is_made_are_in_it(tmp_path: Path) -> None:
    """The engine finishes them: else what was saved would have these rows neither as on disk nor as in RAM alone."""
    with a_shard(QUIET.having(disk={"path": tmp_path / "a"}), swap_fraction=0.9, max_rows_per_shard=2 * N) as shard:
        table = shard.tables["t"]
        until(lambda: len(table.store.below) >= 150)
        pushed(shard)

        def begin() -> Demotion | None:
            table.store.finish_writing()
            return table.store.demote(score.RANKS * 2, 5)

        demotion = shard.engine.run(begin)
        assert demotion is not None
        copy = saved(shard)
        assert demotion.once._done
        with again(copy, QUIET.having(disk={"path": tmp_path / "b"})) as other:
            check_same(whole(other), whole(shard))


def test_saves_say_nothing_where_no_checkpoint_is_taken() -> None:
    Saves(None).check()
