"""A host that goes down, and a disk that fails or is full, at every call: what was complete before stays whole."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.listing import LEFTOVER_S
from ps.errors import DiskError, DiskFull
from tests.clocks import ByHand
from tests.files import Crashed, MemoryFiles
from tests.unit.durability.checkpoint.parts import Row, Shard, manifest_of, rows_in, write_part

DISK = Path("/rocksdb")


class World:
    """A folder with one checkpoint, and a second one to be made, which builds on it."""

    def __init__(self, seed: int = 0) -> None:
        self.files = MemoryFiles(random.Random(seed))
        self.files.make_folder(DISK)
        for name in ("000001.sst", "CURRENT"):
            file = self.files.create(DISK / name)
            file.write([name.encode() * 5])
            file.sync()
        self.files.sync_folder(DISK)
        self.clock = ByHand()
        self.shard = Shard(now=3, rows={id_: Row(float(id_), 2) for id_ in range(20)})
        self.first = self.make(None)
        self.before = dict(self.shard.rows)
        self.shard.version, self.shard.removed_since, self.shard.since, self.shard.removed = 2, 1, 3, [7]
        del self.shard.rows[7]
        self.shard.rows.update({id_: Row(id_ + 0.5, 3) for id_ in (1, 2, 30)})

    @property
    def there(self) -> Checkpoints:
        return Checkpoints("/there", self.files, self.clock, "mine")

    def make(self, base: str | None) -> str:
        there = self.there
        name = there.new_name()
        part = write_part(there, name, self.shard, 0, base, DISK)
        there.complete(name, manifest_of(name, [part], base, "mine"))
        return name

    def make_second(self) -> None:
        self.make(self.first)

    def check(self) -> bool:
        """Whether the second one is there; the first one is, whatever has happened."""
        there = self.there
        names = [each.name for each in there.list()]
        assert names[0] == self.first
        assert rows_in(there, self.first) == self.before
        assert not there.verify(self.first)
        if len(names) == 1:
            return False
        (_, second) = names
        assert rows_in(there, second) == self.shard.rows
        assert not there.verify(second)
        self.files.make_folder(Path("/out"))
        assert there.source(second, 0).put_disk(Path("/out"))
        for name in self.files.names(DISK):
            assert self.files.read(Path("/out") / name, 0, 1000) == self.files.read(DISK / name, 0, 1000)
        return True


def calls_of(do: Callable[[World], object]) -> int:
    world = World()
    before = world.files.calls
    do(world)
    return world.files.calls - before


def test_a_crash_at_any_call_leaves_a_whole_checkpoint_or_none() -> None:
    outcomes = set()
    n = calls_of(World.make_second)
    assert n > 40
    for k, seed in [*((k, k) for k in range(1, n)), *((n, seed) for seed in range(5))]:
        world = World(seed)
        world.files.crash_at = world.files.calls + k
        with pytest.raises(Crashed):
            world.make_second()
        world.files.restart()
        outcomes.add(world.check())
        world.make_second()
        world.clock.now += 2 * LEFTOVER_S
        world.there.prune(9)
        assert len(world.there.list()) >= 2
        assert len(world.files.names(Path("/there"))) == len(world.there.list()), "what was not completed is gone"
    assert outcomes == {False, True}


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, DiskError), (errno.ENOSPC, DiskFull)])
def test_a_call_that_fails_leaves_no_checkpoint_and_the_next_try_makes_one(number: int, kind: type[DiskError]) -> None:
    for k in range(1, calls_of(World.make_second) + 1):
        world = World()
        at = world.files.calls + k

        def fail(call: str, path: Path, world: World = world, at: int = at) -> None:
            if world.files.calls + 1 == at:
                world.files.calls += 1
                raise OSError(number, "it fails", str(path))

        world.files.before = fail
        with pytest.raises(kind, match="/there"):
            world.make_second()
        world.files.before = lambda _call, _path: None
        complete = world.check()
        world.make_second()
        assert len(world.there.list()) == 2 + complete


def test_a_crash_while_checkpoints_are_removed_leaves_those_that_stay_whole() -> None:
    def prune(world: World) -> object:
        return world.there.prune(1)

    def begun(seed: int) -> World:
        world = World(seed)
        world.make_second()
        world.shard.since, world.shard.removed = None, []
        world.make(None)
        return world

    before = begun(0)
    calls = -before.files.calls
    prune(before)
    calls += before.files.calls
    assert len(before.there.list()) == 1
    for k in range(1, calls + 1):
        world = begun(k)
        world.files.crash_at = world.files.calls + k
        with pytest.raises(Crashed):
            prune(world)
        world.files.restart()
        for each in world.there.list():
            assert not world.there.verify(each.name)
        assert rows_in(world.there, world.there.list()[-1].name) == world.shard.rows
        world.clock.now += 2 * LEFTOVER_S
        prune(world)
        assert world.files.names(Path("/there")) == [world.there.list()[-1].name]
