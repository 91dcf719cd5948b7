"""Rows go down and come up while calls of all kinds are under way: each reads what a plain dict says at that moment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ps
from ps.durability.state import taking
from ps.errors import StepNotFound, TableNotFound, Unavailable
from ps.runtime.places import CALLER, Operation
from ps.shard import Shard, StepRef
from ps.shard.caller import Caller
from ps.shard.operations.prepare import prepare
from ps.shard.operations.pull import pull
from ps.shard.operations.push import Body, push
from ps.shard.operations.write import carry_out
from ps.shard.reads.stream import RowStream, plain
from ps.shard.requests import Target, Wanted
from ps.shard.steps.look_ahead import LookAhead
from ps.shard.writes.assign import Assign
from ps.shard.writes.remove import Remove
from ps.shard.writes.upsert import Upsert
from tests.conftest import QUIET
from tests.simulation.seeded import answering
from tests.simulation.stories import Story, blocks, ended, folder, rows, seeds, telling
from tests.unit.durability.memory import InMemory, again
from tests.unit.shard.helpers import DIM, a_write, at_rest, grads_of, ids_of, new_table, none_held, read

IDS = 24
WORKERS, CALLS = 3, 8
KINDS = ["pull", "pull", "prepare", "push", "push", "push", "upsert", "assign", "remove", "rest"]
TTL_S = 10.0
CHECKPOINTS = 4
"""Beside one story in so many a checkpoint is taken: what it has must be what the dict says at its cut."""


class Swap:
    """Tables of which most rows belong on disk, and what they hold by a dict: id -> the value of the row."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.model: dict[str, dict[int, float]] = {}
        self.steps: dict[StepRef, tuple[str, list[int]]] = {}
        self.copied: tuple[InMemory, dict[str, dict[int, float]]] | None = None
        for name in ("t", "u"):
            self.create(name)

    def create(self, name: str) -> None:
        new_table(self.story.shard, name, swap_fraction=0.8)
        self.model[name] = {}

    def worker(self, number: int) -> Operation[None]:
        """Calls of all kinds, of which several are under way at once; callers leave."""
        random, under_way, worker_id = self.story.random, [], self.story.worker_id()
        for call in range(CALLS):
            caller = Caller()
            kind = random.choice(KINDS)
            if kind == "rest":
                self.rest(number)
            else:
                under_way.append(self.story.call(*self.call(kind, StepRef(worker_id, call), caller), caller))
            yield CALLER
            if random.random() < 0.1:
                caller.leave()
            if random.random() < 0.5:
                yield from ended(*under_way)
        yield from ended(*under_way)
        for each in under_way:
            with suppress(StepNotFound, TableNotFound, Unavailable):  # used up, dropped, its caller gone
                each.result()

    def rest(self, worker: int) -> None:
        """Time passes, and leases end; or a table is dropped, and made again."""
        if self.story.random.random() < 0.5:
            self.story.clock.sleep(TTL_S / 2)
        elif worker == 0:
            self.story.shard.drop_table("u")
            self.model.pop("u")
            self.create("u")

    def call(self, kind: str, ref: StepRef, caller: Caller) -> tuple[Operation[Any], Any]:
        """Returns the operation, and what it means for the dict."""
        random, core = self.story.random, self.story.core
        name, value = random.choice("ttu"), float(random.randint(1, 9))
        ids = random.sample(range(IDS), random.randint(1, 12))
        target: Target = [ids_of(name, ids)]
        if kind == "prepare":
            self.steps[ref] = name, ids
            return prepare(core, ref, [ids_of(name, ids)], caller), lambda _: None
        if kind in ("pull", "push") and self.steps and random.random() < 0.5:
            target = random.choice(list(self.steps))
            name, ids = self.steps[target]
        if kind == "pull":
            stream = RowStream(plain, self.story.shard.budget.bodies, self.story.places.queue(), caller)
            pulled = pull(core, target, Wanted(exists=True), stream, caller, 0)
            return reading(stream, pulled), lambda _: self.check(name, ids, stream)
        if kind == "push":
            body = Body(a_write(), [grads_of(name, rows([value] * len(ids), DIM))])
            return answering(push(core, LookAhead(target), caller), body), lambda _: self.pushed(name, ids, value)
        of, values = ids_of(name, ids), [rows([value] * len(ids), DIM)]
        if kind == "upsert":
            done = dict.fromkeys(ids, value)
            return carry_out(core, Upsert(a_write(), of, values), caller), lambda _: self.model[name].update(done)
        if kind == "assign":
            return carry_out(core, Assign(a_write(), of, values), caller), lambda _: self.assigned(name, ids, value)
        return carry_out(core, Remove(a_write(), of), caller), lambda _: [self.model[name].pop(id_, 0) for id_ in ids]

    def checkpoint(self) -> Operation[None]:
        """Takes a checkpoint beside the calls. `copied`: what it has, and what the dict says where the cut is made."""
        copy, expected, core = InMemory(), dict[str, dict[int, float]](), self.story.core
        for _ in range(self.story.random.randrange(2 * CALLS)):
            yield CALLER
        with closing(taking(core, copy, {})) as operation, suppress(TableNotFound):  # dropped meanwhile
            for place in operation:
                if not expected and core.saves.waiting is not None:
                    expected = {name: dict(self.model.get(name, {})) for name in core.tables}
                yield place
            self.copied = copy, expected

    def check(self, name: str, ids: Sequence[int], stream: RowStream) -> None:
        head = stream.head()
        found = np.concatenate([np.empty(0, np.float32), *stream]).reshape(-1, DIM)
        expected = self.model[name]
        assert head.tables[0].exists_N.tolist() == [id_ in expected for id_ in ids]
        assert (found == rows([expected.get(id_, 0.0) for id_ in ids], DIM)).all(), (found[:, 0], expected, ids)

    def pushed(self, name: str, ids: Sequence[int], value: float) -> None:
        for id_ in ids:
            self.model[name][id_] = self.model[name].get(id_, 0.0) - value

    def assigned(self, name: str, ids: Sequence[int], value: float) -> None:
        self.model[name].update({id_: value for id_ in ids if id_ in self.model[name]})

    def check_end(self) -> None:
        """All rows are what they should be, and nothing is held."""
        shard, core = self.story.shard, self.story.core
        check_rows(shard, self.model)
        for ref in self.steps:
            shard.forget(ref)
        self.story.places.idle()
        assert shard.budget.bodies.used == 0
        for table in core.tables.values():
            store = table.store
            assert at_rest(store)
            assert none_held(store)


def check_rows(shard: Shard, model: dict[str, dict[int, float]]) -> None:
    for name, expected in model.items():
        assert (read(shard, name, range(IDS)) == rows([expected.get(id_, 0.0) for id_ in range(IDS)], DIM)).all()


def reading(stream: RowStream, pulled: Operation[None]) -> Operation[None]:
    """A pull whose reader is done with the stream where it fails."""
    try:
        return (yield from pulled)
    except BaseException:
        stream.close()
        raise


@pytest.mark.parametrize("block", blocks())
def test_each_call_sees_what_the_calls_before_it_have_made(tmp_path: Path, block: int) -> None:
    moved = copied = 0
    for seed in seeds(block):
        with ExitStack() as stack:
            path = stack.enter_context(folder(tmp_path))
            config = ps.ServiceConfig(
                disk=ps.DiskConfig(path=path),
                performance=ps.PerformanceConfig(disk_cache_bytes=1 << 20, prepare_ttl_s=TTL_S),
                watching=QUIET.watching,
            )
            story = stack.enter_context(telling(seed, config))
            swap = Swap(story)
            checkpoints = [swap.checkpoint()] if seed % CHECKPOINTS == 0 else []
            story.tell(*[swap.worker(number) for number in range(WORKERS)], *checkpoints)
            swap.check_end()
            if swap.copied is not None:
                copy, expected = swap.copied
                copied += sum(map(len, expected.values()))
                with again(copy, config.having(disk={"path": stack.enter_context(folder(tmp_path))})) as other:
                    check_rows(other, expected)
            moved += sum(table.counts.rows_demoted + table.counts.rows_raised for table in story.core.tables.values())
    assert moved or not seeds(block)
    assert copied or len(seeds(block)) < CHECKPOINTS
