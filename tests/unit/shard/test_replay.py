"""A shard that is fed the log of another is the same shard: every row, statistic, counter and answer of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import ps
from ps.durability.checkpoint.load import load_rows
from ps.errors import ConfigError, PsError
from ps.round import Round
from ps.server.unpacking import WIRE
from ps.shard import Gradients, Shard, StepRef, TableIds
from ps.shard.ledger import WriteId
from ps.shard.requests import BagGradients, Bags
from ps.shard.writes.evict import Evict
from ps.shard.writes.evict_rows import EvictRows
from ps.shard.writes.push import Push
from ps.shard.writes.registry import decode
from tests.unit.shard.helpers import push, read
from tests.unit.shard.histories import History, answers, held, replayed

DIM = 4
IMPORTANCE = ps.Importance(frequency=1, external=1, attribution=0.5, positives=2)
TABLES = {
    "adam": ps.TableConfig(
        name="adam",
        dim=DIM,
        optimizer=ps.Adam(lr=0.1),
        importance=IMPORTANCE,
        admission=ps.CountThreshold(min_count=2, cells=1 << 12),
        max_rows_per_shard=12,
        expire_after_pushes=30,
    ),
    "fp16": ps.TableConfig(
        name="fp16",
        dim=DIM,
        optimizer=ps.Adagrad(lr=0.1),
        importance=IMPORTANCE,
        cold=ps.Fp16(hot_fraction=0.3),
        half_life_pushes=64,
    ),
    "tt": ps.TableConfig(
        name="tt",
        dim=DIM,
        optimizer=ps.SGD(lr=0.1),
        importance=IMPORTANCE,
        cold=ps.TensorTrain(
            rows=60, ranks=2, hot_rows=5, lift_after=1, fold_tolerance=0.5, optimizer=ps.Adagrad(lr=0.2)
        ),
        half_life_pushes=64,
    ),
    "lots": ps.TableConfig(name="lots", dim=DIM, optimizer=ps.FTRL(), admission=ps.Probability(p=0.5)),
}
KEPT = [name for name in TABLES if name != "lots"]
names = st.sampled_from(sorted(TABLES))
ids = st.lists(st.integers(0, 39), min_size=1, max_size=12, unique=True)
seeds = st.integers(0, 2**32)


class ReplayMachine(RuleBasedStateMachine):
    """Whatever is done to the first shard, its log makes the second one."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.history = History()
        self.shard = self._new("first", self.history)
        self.writes: list[WriteId] = []
        self.again: list[Callable[[], object]] = []
        self.steps = 0

    def _new(self, name: str, history: History | None = None) -> Shard:
        return Shard(0, self.config(name), history=history)

    def config(self, name: str) -> ps.ServiceConfig:
        """The configuration of a shard of that name, which has a disk where there is a folder."""
        disk: dict[str, Any] = {"disk": {"path": self.folder / name}} if self.folder else {}
        return ps.ServiceConfig(watching={"metrics": False}, **disk)

    def write(self, worker: int = 1) -> WriteId:
        self.writes.append(WriteId(worker, len(self.writes) + 1, len(self.writes)))
        return self.writes[-1]

    def do(self, what: Callable[[], object]) -> None:
        """It may be refused: where its table is not there, say. Then the log says nothing of it."""
        before = len(self.history.records)
        self.again.append(what)
        try:
            what()
        except PsError:
            assert len(self.history.records) == before

    @initialize()
    def tables(self) -> None:
        for name in TABLES:
            self.shard.create_table(TABLES[name])

    @rule(names=st.lists(names, min_size=1, max_size=3, unique=True), worker=st.integers(1, 3), seed=seeds)
    def push(self, names: Sequence[str], worker: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        target, grads = zip(*(gradients(name, rng) for name in names), strict=True)
        write = self.write(worker)
        self.do(lambda: push(self.shard, target, *grads, write=write))

    @rule(name=names, seed=seeds)
    def push_by_step(self, name: str, seed: int) -> None:
        target, grads = gradients(name, np.random.default_rng(seed))
        self.steps += 1
        step, write = StepRef(7, self.steps), self.write()
        self.do(lambda: self.shard.prepare(step, [target]))
        self.do(lambda: push(self.shard, step, grads, write=write))

    @rule(name=names, seed=seeds)
    def push_of_a_round(self, name: str, seed: int) -> None:
        rng, self.steps = np.random.default_rng(seed), self.steps + 1
        for rank in range(2):
            target, grads = gradients(name, rng)
            self.do(lambda: self.join(rank, target, grads))  # noqa: B023  it is done at once, or again as it was last

    def join(self, rank: int, target: TableIds, grads: Gradients) -> None:
        with self.shard.look_ahead([target]) as ahead:
            self.shard.rounds.join(Round("g", self.steps, rank, 2), 10, self.write(rank + 20), ahead, [grads])

    @rule(name=names, ids=ids, seed=seeds, values=st.booleans())
    def load(self, name: str, ids: list[int], seed: int, values: bool) -> None:
        config = TABLES[name]
        width = DIM if values else DIM + config.optimizer.state_width(DIM)
        rng, of = np.random.default_rng(seed), TableIds(name, np.array(ids, np.int64))
        rows_NW, scores_N = (rng.random((len(ids), n), np.float32) for n in (width, 1))
        self.do(lambda: load_rows(self.shard, of, rows_NW, scores_N[:, 0], seed % 100))

    @rule(name=names, ids=ids, seed=seeds)
    def upsert(self, name: str, ids: list[int], seed: int) -> None:
        write, values = self.write(), rows_of(len(ids), np.random.default_rng(seed))
        self.do(lambda: self.shard.upsert(write, of(name, ids), [values]))

    @rule(name=names, ids=ids, seed=seeds)
    def assign(self, name: str, ids: list[int], seed: int) -> None:
        write, values = self.write(), rows_of(len(ids), np.random.default_rng(seed))
        self.do(lambda: self.shard.assign(write, of(name, ids), [values]))

    @rule(name=names, ids=ids)
    def remove(self, name: str, ids: list[int]) -> None:
        write = self.write()
        self.do(lambda: self.shard.remove(write, of(name, ids)))

    @rule(name=names, n=st.integers(1, 20), seed=seeds)
    def remove_if_unchanged(self, name: str, n: int, seed: int) -> None:
        if name not in self.shard.tables:
            return
        page = self.shard.export_page(name, 0, n)
        statistics_N2 = page.statistics_N2.copy()
        statistics_N2[np.random.default_rng(seed).random(len(statistics_N2)) < 0.3] += 1
        write = self.write()
        self.do(lambda: self.shard.remove(write, of(name, page.ids_N.tolist()), statistics_N2))

    @rule(name=st.sampled_from(KEPT), ids=ids, seed=seeds)
    def report(self, name: str, ids: list[int], seed: int) -> None:
        write, scores_N = self.write(), np.random.default_rng(seed).random(len(ids), np.float32)
        self.do(lambda: self.shard.report_importance(write, of(name, ids), scores_N))

    @rule(name=names, of=st.booleans(), value=st.sampled_from([0, 0.05, 0.5, -1]), data=st.data())
    def change(self, name: str, of: bool, value: float, data: st.DataObject) -> None:
        """Of a setting that may change, or of one that may not; or to a value that is none."""
        settings = {data.draw(st.sampled_from(["lr", "eps", "beta1", "l1", "alpha"])): value}
        write = self.write()
        self.do(lambda: self.shard.set_optimizer(write, name, settings, of and name == "tt"))

    @rule()
    def drop(self) -> None:
        self.do(lambda: self.shard.drop_table("lots"))

    @rule(seed=st.integers(0, 3))
    def create(self, seed: int) -> None:
        self.do(lambda: self.shard.create_table(TABLES["lots"].model_copy(update={"seed": seed})))

    @precondition(lambda self: self.again)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        what = data.draw(st.sampled_from(self.again))
        self.do(what)

    @rule(name=st.sampled_from(KEPT), ids=ids)
    def pull(self, name: str, ids: list[int]) -> None:
        assert np.isfinite(read(self.shard, name, ids)).all()

    @invariant()
    def every_write_is_logged(self) -> None:
        assert self.shard.version == len(self.history.records)

    def teardown(self) -> None:
        second = self._new("second")
        try:
            replayed(self.history.records, second)
            assert held(second) == held(self.shard)
            assert answers(second, self.writes) == answers(self.shard, self.writes)
        finally:
            second.close()
            self.shard.close()


def of(name: str, ids: Sequence[int]) -> TableIds:
    return TableIds(name, np.array(ids, np.int64))


def rows_of(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((n, DIM), np.float32)


def gradients(name: str, rng: np.random.Generator) -> tuple[TableIds, Gradients]:
    """Of some ids, with counts or not, of all or some of them, of their rows or of bags; at times saying which push."""
    ids_N = rng.permutation(40)[: rng.integers(1, 12)].astype(np.int64)
    n = len(ids_N)
    counts_N = rng.integers(1, 4, n).astype(np.uint32) if rng.random() < 0.5 else None
    positives_N = rng.integers(0, 2, n).astype(np.uint32) if rng.random() < 0.5 else None
    pushes = int(rng.integers(0, 30))
    if rng.random() < 0.2:
        bags = Bags(np.arange(n + 1, dtype=np.int64), rng.permutation(n).astype(np.int32))
        sent = BagGradients(n, DIM, [rows_of(n, rng)])
        nothing_R = np.empty(0, np.int64)
        return TableIds(name, ids_N, counts_N, bags), Gradients(name, [], positives_N, nothing_R, n, sent, pushes)
    rows_R = np.flatnonzero(rng.random(n) < 0.7) if rng.random() < 0.5 else None
    rows = rows_of(n if rows_R is None else len(rows_R), rng)
    return TableIds(name, ids_N, counts_N), Gradients(name, [rows], positives_N, rows_R, n, None, pushes)


FEW = settings(max_examples=8, stateful_step_count=25, deadline=None)
MANY = settings(max_examples=150, stateful_step_count=50, deadline=None)
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]


def test_a_log_makes_the_same_shard() -> None:
    run_state_machine_as_test(ReplayMachine, settings=settings(FEW, suppress_health_check=CHECKS))


@pytest.mark.slow
def test_many_logs_make_the_same_shards() -> None:
    run_state_machine_as_test(ReplayMachine, settings=settings(MANY, suppress_health_check=CHECKS))


@pytest.mark.slow
def test_a_log_of_a_shard_with_a_disk_makes_the_same_shard(tmp_path: Path) -> None:
    def on_disk() -> ReplayMachine:
        return ReplayMachine(Path(mkdtemp(dir=tmp_path)))

    run_state_machine_as_test(on_disk, settings=settings(MANY, max_examples=30, suppress_health_check=CHECKS))


def test_what_was_evicted_is_in_the_log_whatever_room_there_is_now() -> None:
    """Before a push for which there is no room, after one that was too much, and one by one in a table of few rows."""
    history, n, dim = History(), 12_000, 64
    first, second = (
        Shard(0, ps.ServiceConfig(memory={"ram_bytes": ram}, watching={"metrics": False}), history=log)
        for ram, log in (("64MiB", history), ("256MiB", None))
    )
    try:
        for name, most in (("many", None), ("few", 3)):
            first.create_table(ps.TableConfig(name=name, dim=dim, max_rows_per_shard=most))
        refused = 0
        for k in range(16):
            ids_N = np.arange(n * (1 + (k == 9)), dtype=np.int64) + k * n
            target = [TableIds("many", ids_N), of("few", range(k, k + 800))]
            grads = [Gradients(p.table, [np.ones((len(p.ids_N), dim), np.float32)]) for p in target]
            try:
                push(first, target, *grads)
            except PsError:
                refused += 1
        kinds = [type(decode(record, WIRE)) for record in history.records]
        assert kinds.count(Evict) > 2
        assert kinds.count(EvictRows) > 2
        assert kinds.count(Push) == 16 - refused
        assert held(replayed(history.records, second)) == held(first)
        assert len(second.tables["many"]) < 100_000
    finally:
        first.close()
        second.close()


def test_a_shard_without_a_bound_does_not_pass_over_evictions() -> None:
    """It has not counted its rows in the way in which they were chosen: it would keep those that had gone."""
    shard = Shard(0, ps.ServiceConfig(watching={"metrics": False}))
    try:
        shard.create_table(ps.TableConfig(name="t", dim=DIM))
        push(shard, [of("t", range(40))], Gradients("t", [np.ones((40, DIM), np.float32)]))
        before = held(shard)
        with pytest.raises(
            ConfigError, match=r"'t': rows were evicted .* memory\.ram_bytes, disk\.path and disk\.max_"
        ):
            shard.replay(Evict({"t": 10}))
        assert held(shard) == before
    finally:
        shard.close()
