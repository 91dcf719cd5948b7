"""A catalog and its chains of increments are a dict of dicts: whatever happens, each checkpoint gives its own rows."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.listing import chain_of
from ps.durability.checkpoint.source import PartSource
from ps.durability.checkpoint.stores.store import store_of
from ps.errors import InvalidArgument
from ps.kernels.ranking import score
from ps.storage.ram.cuts import Cuts
from tests.clocks import ByHand
from tests.files import MemoryFiles
from tests.unit.durability.checkpoint.parts import NEVER, Row, Shard, make, rows_in, write_part

ids = st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True)
_urls = (f"memory://machine-{number}" for number in itertools.count())


class CatalogMachine(RuleBasedStateMachine):
    """One service with one shard, and now and then another service in the same folder."""

    url = "/there"

    def __init__(self) -> None:
        super().__init__()
        self.clock = ByHand()
        url = self.url or next(_urls)
        files = MemoryFiles()
        self.there = Checkpoints(url, files, self.clock, "mine")
        self.others = Checkpoints(url, files, self.clock, "others")
        self.shard = Shard(now=1)
        self.values = itertools.count()
        self.removed: list[int] = []
        self.made: dict[str, tuple[dict[int, Row], str | None]] = {}
        """Of each checkpoint of this service, its rows and its base."""
        self.foreign: dict[str, dict[int, Row]] = {}
        self.kept: tuple[str, Shard] | None = None
        """The last that a later one may build on, and the shard as it was then."""

    @rule(ids=ids)
    def write(self, ids: list[int]) -> None:
        for id_ in ids:
            self.shard.rows[id_] = Row(float(next(self.values)), self.shard.now)

    @rule(ids=ids)
    def remove_rows(self, ids: list[int]) -> None:
        for id_ in ids:
            self.shard.rows.pop(id_, None)
        self.removed += ids

    @rule()
    def tick(self) -> None:
        self.shard.now += 1

    @rule()
    def cut(self) -> None:
        """All rows that were not touched at this time are dropped."""
        cuts = Cuts(np.uint32(1))
        cuts.restore(self.shard.cuts)
        cuts.add(self.shard.now, 1 << 40)
        self.shard.cuts = cuts.state()
        self.shard.rows = {id_: row for id_, row in self.shard.rows.items() if row.stamp >= self.shard.now}

    @rule()
    def drop_and_create(self) -> None:
        version = self.shard.version + 1
        self.shard = Shard(version=version, born=version, now=1, cuts=NEVER)
        self.removed = []

    @rule(whole=st.booleans(), ends=st.sampled_from(["kept", "not completed", "given up"]))
    def checkpoint(self, whole: bool, ends: str) -> None:
        shard, base = self.shard, None if whole or self.kept is None else self.kept[0]
        shard.version += 1
        shard.since, shard.removed = None, self.removed
        if base is not None and self.kept is not None:
            shard.removed_since = self.kept[1].version
            shard.since = self.kept[1].now if self.kept[1].born == shard.born else None
        if ends != "kept":
            name = self.there.new_name()
            write_part(self.there, name, shard, 0, base)
            if ends == "given up":
                self.there.remove(name)
            return
        name = make(self.there, shard, base=base, service="mine")
        assert name > max([*self.made, *self.foreign], default="")
        self.made[name] = dict(shard.rows), base
        self.kept = name, Shard(shard.version, shard.now, born=shard.born)
        self.removed = []

    @rule()
    def checkpoint_of_others(self) -> None:
        shard = Shard(rows={1: Row(9.0, 0)})
        self.foreign[make(self.others, shard, service="others")] = shard.rows

    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        self.there.prune(keep)
        stay = set(sorted(self.made)[-keep:])
        for name in [*stay]:
            while (base := self.made[name][1]) is not None:
                stay.add(base)
                name = base
        self.made = {name: own for name, own in self.made.items() if name in stay}
        self._forget()

    def _forget(self) -> None:
        if self.kept is not None and self.kept[0] not in self.made:
            self.kept = None

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.made:
            name = data.draw(st.sampled_from(sorted(self.made)))
            if any(base == name for _, base in self.made.values()):
                with pytest.raises(InvalidArgument, match="builds on"):
                    self.there.remove(name)
                return
            self.there.remove(name)
            del self.made[name]
            self._forget()

    @rule(seconds=st.integers(0, 3 * 24 * 3600))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def each_has_its_rows(self) -> None:
        assert [each.name for each in self.there.list()] == sorted([*self.made, *self.foreign])
        newest = self.there.newest()
        assert (newest and newest.name) == max(self.made, default=None)
        expected = {**{name: rows for name, (rows, _) in self.made.items()}, **self.foreign}
        for name, rows in expected.items():
            assert plain(rows_in(self.there, name)) == plain(rows)
            assert not self.there.verify(name)


def plain(rows: dict[int, Row]) -> dict[int, tuple[float, int]]:
    return {id_: (row.value, row.stamp) for id_, row in rows.items()}


class RemoteMachine(CatalogMachine):
    """The same in fsspec's memory."""

    url = ""


@pytest.mark.parametrize("machine", [CatalogMachine, RemoteMachine])
def test_each_checkpoint_gives_its_own_rows(machine: Any) -> None:
    chosen = settings(max_examples=4, stateful_step_count=25, deadline=None, suppress_health_check=[*HealthCheck])
    run_state_machine_as_test(machine, settings=chosen)


def test_rows_of_an_older_part_that_the_disk_has_as_they_are_or_newer_are_left_to_it() -> None:
    files = MemoryFiles()
    there = Checkpoints("/there", files)
    marks = score.DIRTY
    shard = Shard(now=5, rows={id_: Row(float(id_), 4, marks, 2.0) for id_ in range(5)})
    base = make(there, shard)
    shard.version, shard.removed_since, shard.since, shard.now = 2, 1, 5, 6
    shard.rows[9] = Row(9.0, 5, marks)
    name = make(there, shard, base=base)
    bits = {what: int(np.float32(what).view(np.uint32)) for what in (1.0, 2.0, 3.0)}
    # as it is; changed since; touched again at that stamp; changed in RAM alone; its score alone was changed in RAM
    on_disk = {0: (bits[2.0], 4), 1: (bits[1.0], 5), 2: (bits[3.0], 4), 3: (bits[2.0], 3), 4: (bits[1.0], 4)}
    disk = np.array(list(on_disk)), np.array(list(on_disk.values()), np.uint32)
    store = store_of("/there", files)
    source = PartSource(store, chain_of(store, name, 0), lambda _config: disk)
    pages = [zip(records.ids_N.tolist(), marks_N.tolist(), strict=True) for records, marks_N in source.rows("t")]
    found = dict(itertools.chain(*pages))
    assert found == {3: score.COPIED | score.DIRTY, 4: score.COPIED | score.DIRTY, 9: score.DIRTY}


def test_rows_that_were_cut_or_are_of_another_table_or_of_before_a_whole_part_are_gone() -> None:
    there = Checkpoints("/there", MemoryFiles())
    cuts = Cuts(np.uint32(1))
    cuts.add(3, 1 << 40)
    for change, left in (
        ({"cuts": cuts.state()}, {2, 9}),
        ({"born": 2, "since": None}, {9}),
        ({"since": None}, {1, 2, 9}),
        ({}, {1, 2, 9}),
    ):
        shard = Shard(now=5, rows={1: Row(1.0, 2), 2: Row(2.0, 3)})
        base = make(there, shard)
        shard.version, shard.removed_since, shard.since = 2, 1, 5
        shard.rows = {9: Row(9.0, 5)} if "born" in change else {**shard.rows, 9: Row(9.0, 5)}
        for name, value in change.items():
            setattr(shard, name, value)
        assert rows_in(there, make(there, shard, base=base)).keys() == left
