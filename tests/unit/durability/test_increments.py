"""Checkpoints that build on each other make the shard that the newest was taken of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

import ps
from ps.durability.state import checkpoint, kept
from ps.shard import Shard
from ps.shard.cut import Since
from ps.storage.disk.family import Family
from ps.storage.ram.cuts import Cuts
from ps.storage.ram.removed import Removed
from ps.storage.tier import Records, where
from tests.conftest import QUIET
from tests.unit.durability.memory import InMemory, again, check_same, check_tiers, saved, whole
from tests.unit.shard.helpers import DIM, a_write, ids_of, new_table, push_ids, read
from tests.unit.shard.test_replay import CHECKS, ReplayMachine
from tests.waiting import until


class Chain(InMemory):
    """Gives the rows of a checkpoint that others follow, and of these: the newest of each id that is still there."""

    def __init__(self, links: list[InMemory]) -> None:
        super().__init__()
        self._links, self._state, self._disk = links, links[-1].state(), links[-1]._disk

    def rows(self, table: str) -> list[tuple[Records, npt.NDArray[np.uint16]]]:
        found: list[tuple[Records, npt.NDArray[np.uint16]]] = []
        for link in self._links:
            own = of_table(link, table)
            if own is None or own["since"] is None:
                found = []
            else:
                found = [without(page, own["removed.ids_N"]) for page in found]
            for records, marks_N in link.rows(table):
                found = [without(page, records.ids_N) for page in found] + [(records, marks_N)]
        own = of_table(self._links[-1], table)
        assert own is not None
        cuts = Cuts(np.uint32(own["ranking.per_tick"]))
        cuts.restore({name: own[f"dropped.cuts.{name}"] for name in cuts.state()})
        return [chosen(page, ~cuts.met(page[0].statistics_N2)) for page in found]


def of_table(copy: InMemory, table: str) -> dict[str, Any] | None:
    for number in range(100):
        prefix = f"tables.{number}."
        own = {name[len(prefix) :]: value for name, value in copy.state().items() if name.startswith(prefix)}
        if own and ps.TableConfig.from_json(own["config"]).name == table:
            return own
    return None


def chosen(
    page: tuple[Records, npt.NDArray[np.uint16]], chosen_N: npt.NDArray[np.bool_]
) -> tuple[Records, npt.NDArray[np.uint16]]:
    return where(page[0], chosen_N), page[1][chosen_N]


def without(
    page: tuple[Records, npt.NDArray[np.uint16]], ids_N: npt.NDArray[np.int64]
) -> tuple[Records, npt.NDArray[np.uint16]]:
    return chosen(page, ~np.isin(page[0].ids_N, ids_N))


def since_of(copy: InMemory, shard: Shard) -> Since:
    tables = {name: of_table(copy, name) for name in shard.tables}
    return {(name, own["born"]): own["ranking.now"] for name, own in tables.items() if own is not None}


class IncrementMachine(ReplayMachine):
    """Whatever is done between checkpoints, of which some are not kept."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.links: list[InMemory] = []

    @rule()
    def keep(self) -> None:
        copy = self.next()
        self.links.append(copy)
        kept(self.shard, copy.version)
        with again(Chain(self.links), self.config(f"restored-{len(self.links)}")) as other:
            check_same(whole(other), whole(self.shard))
            check_tiers(other)

    @precondition(lambda self: self.links)
    @rule()
    def fail(self) -> None:
        """It is taken, and nobody keeps it."""
        self.next()

    def next(self) -> InMemory:
        copy = InMemory()
        checkpoint(self.shard, copy, since_of(self.links[-1], self.shard) if self.links else None)
        return copy

    def teardown(self) -> None:
        try:
            self.keep()
        finally:
            self.shard.close()


def run(folder: Path | None, **how: Any) -> None:
    def make() -> IncrementMachine:
        return IncrementMachine(Path(mkdtemp(dir=folder)) if folder else None)

    run_state_machine_as_test(make, settings=settings(deadline=None, suppress_health_check=CHECKS, **how))


def test_a_chain_of_checkpoints_makes_the_newest() -> None:
    run(None, max_examples=4, stateful_step_count=25)


@pytest.mark.slow
def test_long_chains_of_checkpoints_make_the_newest() -> None:
    run(None, max_examples=40, stateful_step_count=50)


@pytest.mark.slow
def test_chains_of_checkpoints_of_a_shard_with_a_disk_make_the_newest(tmp_path: Path) -> None:
    run(tmp_path, max_examples=8, stateful_step_count=30)


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    shard = Shard(0, QUIET.having(disk={"path": tmp_path / "first"}))
    try:
        new_table(shard, swap_fraction=0.5, half_life_pushes=64)
        push_ids(shard, "t", range(200), np.ones((200, DIM)))
        yield shard
    finally:
        shard.close()


def test_an_increment_has_what_changed_and_rows_that_went_down_since_are_not_in_ram(
    shard: Shard, tmp_path: Path
) -> None:
    base = saved(shard)
    kept(shard, base.version)
    table = shard.tables["t"]
    push_ids(shard, "t", range(1000, 1300), np.ones((300, DIM)))
    until(lambda: len(table.store.below) >= 230)
    shard.remove(a_write(), ids_of("t", [3]))
    copy = InMemory()
    checkpoint(shard, copy, since_of(base, shard))
    ids_N = np.concatenate([records.ids_N for records, _ in copy.rows("t")])
    assert (ids_N >= 1000).all()
    assert of_table(copy, "t")["removed.ids_N"].tolist() == [3]  # type: ignore[index]
    with again(Chain([base, copy]), QUIET.having(disk={"path": tmp_path / "second"})) as other:
        check_same(whole(other), whole(shard))
        check_tiers(other)
        assert len(other.tables["t"].ram) < 350
        write = a_write()
        for each in (shard, other):
            each.remove(write, ids_of("t", range(0, 1300, 3)))
        check_same(whole(other), whole(shard))
        check_tiers(other)


def test_an_increment_has_only_rows_that_were_touched_since() -> None:
    shard = Shard(0, QUIET)
    try:
        new_table(shard)
        push_ids(shard, "t", range(200), np.ones((200, DIM)))
        base, copy = saved(shard), InMemory()
        kept(shard, base.version)
        push_ids(shard, "t", [3, 300], np.ones((2, DIM)))
        checkpoint(shard, copy, since_of(base, shard))
        assert sorted(i for records, _ in copy.rows("t") for i in records.ids_N.tolist()) == [3, 300]
    finally:
        shard.close()


def test_an_increment_has_only_what_changed_where_the_clock_stands_still() -> None:
    """Nothing comes, so nothing turns over: the stamps of all rows are the present one."""
    bounded = QUIET.having(memory={"ram_bytes": 64 << 20})
    with closing(Shard(0, bounded)) as shard:
        shard.create_table(ps.TableConfig(name="t", dim=DIM))
        for _ in range(3):
            push_ids(shard, "t", range(1000), np.ones((len(range(1000)), DIM)))
        base = saved(shard)
        kept(shard, base.version)
        push_ids(shard, "t", range(10), np.ones((len(range(10)), DIM)))
        lost, increment = InMemory(), InMemory()
        checkpoint(shard, lost, since_of(base, shard))
        assert sum(len(records) for records, _ in lost.rows("t")) == 10
        push_ids(shard, "t", range(20, 25), np.ones((len(range(20, 25)), DIM)))
        checkpoint(shard, increment, since_of(base, shard))
        ids_N = np.concatenate([records.ids_N for records, _ in increment.rows("t")])
        assert {*range(10), *range(20, 25)} <= set(ids_N.tolist()), "the one before was not kept"


def test_rows_of_an_older_checkpoint_are_known_to_be_on_disk_in_an_older_form(shard: Shard, tmp_path: Path) -> None:
    until(lambda: len(shard.tables["t"].store.below) >= 90)
    push_ids(shard, "t", range(200), np.ones((200, DIM)))  # they come up and change
    base, copy = saved(shard), InMemory()
    kept(shard, base.version)
    push_ids(shard, "t", [500], np.ones((1, DIM)))
    checkpoint(shard, copy, since_of(base, shard))
    with again(Chain([base, copy]), QUIET.having(disk={"path": tmp_path / "second"})) as other:
        check_tiers(other)
        check_same(whole(other), whole(shard))


def test_rows_go_where_the_settings_of_the_new_shard_say(shard: Shard, tmp_path: Path) -> None:
    until(lambda: len(shard.tables["t"].store.below) >= 90)
    push_ids(shard, "t", range(50), np.ones((50, DIM)))
    with again(saved(shard), QUIET) as in_ram:
        assert len(in_ram.tables["t"].ram) == 200
        check_same(whole(in_ram), whole(shard))
        with again(saved(in_ram), QUIET.having(disk={"path": tmp_path / "second"})) as other:
            assert 0 < len(other.tables["t"].ram) < 200
            check_same(whole(other), whole(shard))
            check_tiers(other)


def test_no_key_on_disk_is_read_at_the_start(shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    until(lambda: len(shard.tables["t"].store.below) >= 90)
    copy, walked = saved(shard), []
    walk = Family._walk
    monkeypatch.setattr(Family, "_walk", lambda *given: walked.append(given) or walk(*given))  # type: ignore[func-returns-value]
    with again(copy, QUIET.having(disk={"path": tmp_path / "second"})) as other:
        assert not walked
        np.testing.assert_array_equal(read(other, "t", range(200)), read(shard, "t", range(200)))


def test_removals_are_known_since_the_last_checkpoint_that_was_kept() -> None:
    removed = Removed(most=10)

    def now() -> list[int] | None:
        ids_N = removed.state()["ids_N"]
        return None if ids_N is None else ids_N.tolist()

    removed.note(np.arange(3))
    removed.mark(7)
    removed.note(np.arange(3, 5))
    removed.mark(9)
    removed.note(np.arange(5, 6))
    assert (now(), removed.since) == ([0, 1, 2, 3, 4, 5], 0)
    removed.kept(8)
    assert removed.since == 0, "there was none"
    removed.kept(7)
    assert (now(), removed.since) == ([3, 4, 5], 7)
    removed.kept(9)
    assert (now(), removed.since) == ([5], 9)
    other = Removed(most=10)
    other.restore(removed.state())
    assert other.state()["ids_N"].tolist() == [5]
    removed.note(np.arange(10))
    assert (now(), removed.since) == (None, None), "they were too many"
    removed.note(np.arange(3))
    removed.mark(12)
    removed.note(np.arange(2))
    assert now() is None
    removed.kept(12)
    assert (now(), removed.since) == ([0, 1], 12)
