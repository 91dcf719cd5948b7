"""Writes are sent again, answers are lost and callers leave: a plain dict says that each write is applied once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from ps.errors import PsError, Unavailable
from ps.round import Round
from ps.runtime.places import CALLER, Operation
from ps.shard.caller import Caller
from ps.shard.ledger import WriteId
from ps.shard.operations.prepare import prepare
from ps.shard.operations.pull import pull
from ps.shard.operations.push import Body, push
from ps.shard.operations.round import join
from ps.shard.operations.write import carry_out
from ps.shard.reads.stream import RowStream, plain
from ps.shard.requests import PushResult, StepRef, Target, Wanted
from ps.shard.running import Running
from ps.shard.steps.look_ahead import LookAhead
from ps.shard.writes.change import ChangeTable
from ps.shard.writes.upsert import Upsert
from tests.conftest import QUIET
from tests.simulation.seeded import answering
from tests.simulation.stories import Story, blocks, ended, rows, seeds, telling
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, read

IDS = 6
WORKERS, WRITES = 3, 5
RANKS, ROUNDS = 2, 3
SUMMED = 100
"""The id that rounds push, to a table of their own."""


class Once:
    """What a shard was told, and what it holds by a dict: id -> the value of the row."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.model: dict[int, float] = {}
        self.lr = 1.0
        self.told: dict[WriteId, object] = {}
        for name in "tu":
            new_table(story.shard, name)

    def worker(self) -> Operation[None]:
        """Writes, each sent until it is answered, and then perhaps again; calls of one are under way at once."""
        worker_id = self.story.worker_id()
        for sequence in range(1, WRITES + 1):
            begin = self.write(worker_id, sequence)
            answered = False
            while not answered or self.story.random.random() < 0.3:
                callers = [Caller() for _ in range(self.story.random.choice([1, 1, 2]))]
                calls = [begin(caller) for caller in callers]
                yield CALLER
                if self.story.random.random() < 0.3:
                    callers[0].leave()
                yield from ended(*calls)
                for call in calls:
                    with suppress(Unavailable):  # its caller has gone
                        call.result()
                        answered = True
            yield from self.pulled()

    def write(self, worker: int, sequence: int) -> Callable[[Caller], Running[Any]]:
        """Returns what begins a call of a new write."""
        random, core = self.story.random, self.story.core
        write, value = a_write(worker, sequence, digest=sequence), float(random.randint(1, 9))
        ids = random.sample(range(IDS), random.randint(1, IDS))
        of, ref = [ids_of("t", ids)], StepRef(worker, sequence)
        if random.random() < 0.15:
            lr = random.choice([0.0, 0.5, 2.0])
            change = ChangeTable(write, "t", {"lr": lr})
            return lambda caller: self.story.call(
                carry_out(core, change, caller), lambda found: self.once(write, found[0], self.model, lr), caller
            )
        if random.random() < 0.2:
            made = dict.fromkeys(ids, value)
            upsert = Upsert(write, of[0], [rows([value] * len(ids), DIM)])
            return lambda caller: self.story.call(
                carry_out(core, upsert, caller), lambda found: self.once(write, found[0], self.model | made), caller
            )
        self.story.call(prepare(core, ref, of, Caller()), lambda _: None, Caller())
        body = Body(write, [grads_of("t", rows([value] * len(ids), DIM))])

        def begin(caller: Caller) -> Running[Any]:
            target: Target = of  # the step may be used up already: then a retry names the ids
            if random.random() < 0.5 and ref in core.steps._steps:
                target = ref
            return self.story.call(
                answering(push(core, LookAhead(target), caller), body),
                lambda found: self.once(write, found, self.model | self.pushed(ids, value)),
                caller,
            )

        return begin

    def pushed(self, ids: list[int], value: float) -> dict[int, float]:
        """Rows that a push makes, at the rate of the moment at which it is applied."""
        return {i: self.model.get(i, 0.0) - self.lr * value for i in ids}

    def once(self, write: WriteId, found: object, after: dict[int, float], lr: float | None = None) -> None:
        """A write was answered: for the first time it was applied, and otherwise the answer is the same."""
        if isinstance(found, PushResult):
            assert found.repeated == (write in self.told)
            found = found.version
        else:
            found = (found.version, found.existed_N.tolist())  # type: ignore[attr-defined]
        if write not in self.told:
            self.model = after
            self.lr = self.lr if lr is None else lr
        assert self.told.setdefault(write, found) == found

    def pulled(self) -> Operation[None]:
        """Rows are what the dict says at the moment of the pull."""
        caller, ids = Caller(), list(range(IDS))
        stream = RowStream(plain, self.story.shard.budget.bodies, self.story.places.queue(), caller)
        operation = pull(self.story.core, [ids_of("t", ids)], Wanted(), stream, caller, 0)
        call = self.story.call(operation, lambda _: self.check(stream), caller)
        yield from ended(call)
        call.result()

    def check(self, stream: RowStream) -> None:
        stream.head()
        expected = rows([self.model.get(id_, 0.0) for id_ in range(IDS)], DIM)
        assert (np.concatenate(list(stream)).reshape(-1, DIM) == expected).all()

    def rank(self, rank: int) -> Operation[None]:
        """Pushes of rounds: a rank that leaves, or is too late, comes again with the same push."""
        random, shard, worker_id = self.story.random, self.story.shard, self.story.worker_id()
        for number in range(ROUNDS):
            write = a_write(worker_id, number + 1, digest=number)
            answered = False
            while not answered or random.random() < 0.2:
                caller = Caller()
                with shard.look_ahead([ids_of("u", [SUMMED])], caller) as ahead:
                    while not ahead.running.waits:
                        yield CALLER
                    body = Body(write, [grads_of("u", rows([rank + 1], DIM))])
                    place = Round("g", number, rank, RANKS)
                    call = self.story.call(join(self.story.core, place, 1.0, ahead, body, 0), lambda _: None, caller)
                    yield from ended(call)
                    waiting = call.result()
                    while not waiting.outcome.done():
                        if random.random() < 0.02:
                            random.choice([shard.rounds.leave, shard.rounds.expire])(waiting)
                        yield CALLER
                    with suppress(PsError, CancelledError):
                        waiting.outcome.result()
                        answered = True


def told(story: Story) -> Once:
    once = Once(story)
    ranks = [once.rank(rank) for rank in range(RANKS)]
    story.tell(*[once.worker() for _ in range(WORKERS)], *ranks)
    return once


def test_a_seed_makes_the_same_story_again() -> None:
    ends = []
    for _ in range(2):
        with telling(7, QUIET) as story:
            once = told(story)
            engine = story.shard.engine
            ends.append((list(once.told.items()), once.model, story.clock.now, engine.wait_s, story.random.random()))
    assert ends[0] == ends[1]
    assert ends[0][3] > 0, "the engine's figures are of this clock too"


@pytest.mark.parametrize("block", blocks())
def test_each_write_is_applied_once(block: int) -> None:
    for seed in seeds(block):
        with telling(seed, QUIET) as story:
            once = told(story)
            expected = [once.model.get(id_, 0.0) for id_ in range(IDS)]
            assert (read(story.shard, "t", range(IDS)) == rows(expected, DIM)).all()
            assert len(once.told) == WORKERS * WRITES
            total = -float(ROUNDS * sum(range(1, RANKS + 1)))
            assert read(story.shard, "u", [SUMMED]).tolist() == [[total] * DIM]
            assert story.shard.stats()["rounds_waiting"] == story.shard.budget.bodies.used == 0
