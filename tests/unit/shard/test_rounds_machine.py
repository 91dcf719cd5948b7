"""Who waits, who leaves and who is asked to come again, against a plain dict; what is applied is what was answered."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

import ps
from ps.shard import Shard
from ps.shard.parts import Waiting
from ps.shard.rounds import FAIR_S
from tests.conftest import QUIET
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, read

RANKS = {"a": 2, "b": 3, "c": 4}
"""Of each group; all that may wait of b and c is more than there is room for."""
MOST = 4
IDS = {group: number for number, group in enumerate(RANKS)}
"""Each group has a row of its own: minus the sum of what was applied for it."""


@dataclass(eq=False)
class Push:
    group: str
    number: int
    rank: int
    value: int
    sequence: int
    joined: Waiting | None = None

    @property
    def outcome(self) -> str:
        """What its caller is told: "waits", "applied", or the name of an error."""
        assert self.joined is not None
        if not self.joined.outcome.done():
            return "waits"
        try:
            self.joined.outcome.result()
        except (ps.PsError, CancelledError) as error:
            return type(error).__name__
        return "applied"


class RoundsMachine(RuleBasedStateMachine):
    pushes = Bundle("pushes")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.shard = Shard(0, QUIET.model_copy(update={"max_requests": 2 * MOST}), lambda: self.now)
        new_table(self.shard)
        self.sequences = 0
        self.open: dict[str, tuple[float, dict[int, Push]]] = {}
        self.told: dict[Push, str] = {}
        self.sums = dict.fromkeys(RANKS, 0)
        self.version = 0

    def teardown(self) -> None:
        self.shard.close()

    # what is done

    def join(self, push: Push) -> Push:
        target = [ids_of("t", [IDS[push.group]])]
        place = ps.Round(push.group, push.number, push.rank, RANKS[push.group])
        write = a_write(push.rank + 1 + 10 * IDS[push.group], push.sequence, push.value)
        expected = self.expect(push)
        with self.shard.look_ahead(target) as ahead:
            try:
                push.joined = self.shard.join_round(
                    place, 1.0, write, ahead, [grads_of("t", np.full((1, DIM), push.value))]
                )
                found = push.outcome
            except ps.PsError as error:
                found = type(error).__name__
        assert found == expected
        return push

    def expect(self, push: Push) -> str:
        group, ranks = push.group, RANKS[push.group]
        since, here = self.open.get(group, (self.now, {}))
        others = {rank: other for rank, other in here.items() if rank != push.rank}
        if any(other.number != push.number for other in others.values()):
            return "InvalidArgument"
        if push.rank in here:
            same = here[push.rank].sequence == push.sequence
            self.told[here.pop(push.rank)] = "Unavailable" if same else "SequenceConflict"
        if len(others) + 1 == ranks:
            self.open.pop(group, None)
            for part in [*others.values(), push]:
                self.sums[group] += part.value
                self.told[part] = "applied"
            self.version += 1
            return "applied"
        while sum(len(parts) for _, parts in self.open.values()) >= MOST:
            if group not in self.open:
                self.open[group] = (self.now, {})  # the newest
            overdue = [name for name, (at, _) in self.open.items() if name != group and self.now - at >= FAIR_S]
            leaves = (overdue or list(self.open)[-1:])[0]
            for part in self.open.pop(leaves)[1].values():
                self.told[part] = "ResourceExhausted"
            if leaves == group:
                return "ResourceExhausted"
        self.open.setdefault(group, (since, {}))[1][push.rank] = push
        self.told[push] = "waits"
        return "waits"

    @rule(target=pushes, group=st.sampled_from(sorted(RANKS)), data=st.data(), number=st.sampled_from([1, 1, 1, 2]))
    def push(self, group: str, data: st.DataObject, number: int) -> Push:
        """A new one: of a rank that has none here, or of one that was started again."""
        self.sequences += 1
        rank = data.draw(st.integers(0, RANKS[group] - 1))
        return self.join(Push(group, number, rank, 1 + self.sequences % 7, self.sequences))

    @rule(push=pushes)
    def again(self, push: Push) -> None:
        """The same, whatever became of it: what was applied is answered, and not applied again."""
        repeat = Push(push.group, push.number, push.rank, push.value, push.sequence)
        if self.was_applied(push):
            with self.shard.look_ahead([ids_of("t", [IDS[push.group]])]) as ahead:
                place = ps.Round(push.group, push.number, push.rank, RANKS[push.group])
                write = a_write(push.rank + 1 + 10 * IDS[push.group], push.sequence, push.value)
                grads = [grads_of("t", np.full((1, DIM), push.value))]
                assert self.shard.join_round(place, 1.0, write, ahead, grads).outcome.result().repeated
        else:
            self.same.setdefault(push.sequence, [push]).append(self.join(repeat))

    @property
    def same(self) -> dict[int, list[Push]]:
        """Calls of the same push, beside the first."""
        return self.__dict__.setdefault("_same", {})

    def was_applied(self, push: Push) -> bool:
        return any(self.told.get(call) == "applied" for call in self.same.get(push.sequence, [push]))

    @rule(push=consumes(pushes), expires=st.booleans())
    def leave(self, push: Push, expires: bool) -> None:
        """Its call ends, or its time does."""
        if push.joined is None:
            return
        (self.shard.expire if expires else self.shard.leave_round)(push.joined)
        if self.told.get(push) == "waits":
            self.told[push] = "DeadlineExceeded" if expires else "CancelledError"
            parts = self.open[push.group][1]
            del parts[push.rank]
            if not parts:
                del self.open[push.group]

    @rule(seconds=st.sampled_from([1.0, FAIR_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.open)
    @rule()
    def first(self) -> None:
        """The round that opened first is completed when its other ranks come, whatever waits beside it."""
        group, (_, parts) = next(iter(self.open.items()))
        number = next(iter(parts.values())).number
        for rank in set(range(RANKS[group])) - set(parts):
            self.sequences += 1
            last = self.join(Push(group, number, rank, 1, self.sequences))
        assert last.outcome == "applied"

    # what holds

    @invariant()
    def callers_are_told(self) -> None:
        self.shard.engine.run(lambda: None)
        told = {push: push.outcome for push in self.told if push.joined is not None}
        assert told == {push: what for push, what in self.told.items() if push.joined is not None}

    @invariant()
    def no_more_wait_than_may(self) -> None:
        waiting = sum(len(parts) for _, parts in self.open.values())
        assert self.shard.stats()["rounds_waiting"] == waiting <= MOST

    @invariant()
    def what_was_acknowledged_is_applied_once(self) -> None:
        rows = read(self.shard, "t", list(IDS.values()))[:, 0]
        assert rows.tolist() == [-float(self.sums[group]) for group in IDS]
        assert self.shard.version == self.version


RoundsMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
TestRounds = RoundsMachine.TestCase
