"""Who waits, who leaves and who is asked to come again, against a plain dict; what is applied is what was answered."""

from __future__ import annotations

from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

import ps
from ps.shard import Gradients, Shard, TableIds
from ps.shard.ledger import WriteId
from ps.shard.writes.parts import Waiting
from ps.shard.writes.rounds import FAIR_S, Rounds
from tests.clocks import ByHand
from tests.conftest import QUIET
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, read

RANKS = {"a": 2, "b": 3, "c": 4}
"""Of each group; all that may wait of b and c is more than there is room for."""
MOST = 4
IDS = {group: [10 * number + at for at in range(3)] for number, group in enumerate(RANKS)}
"""Each group has rows of its own: minus the sums of what was applied for it. A push is of the first so many of them."""
ROW_BYTES = 2 * 4 * DIM
ROOM_BYTES = 8 * ROW_BYTES
"""Six rows may wait; two ranks may send four between them before the other has come, three ranks five."""


@dataclass(eq=False)
class Push:
    group: str
    number: int
    rank: int
    value: int
    sequence: int
    rows: int = 1
    joined: Waiting | None = None

    @property
    def ids(self) -> list[TableIds]:
        return [ids_of("t", IDS[self.group][: self.rows])]

    @property
    def grads(self) -> list[Gradients]:
        return [grads_of("t", np.full((self.rows, DIM), self.value))]

    @property
    def write(self) -> WriteId:
        return a_write(self.rank + 1 + 10 * ord(self.group), self.sequence, self.value)

    @property
    def place(self) -> ps.Round:
        return ps.Round(self.group, self.number, self.rank, RANKS[self.group])

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
        self.clock = ByHand()
        self.shard = Shard(0, QUIET.having(limits={"max_requests": 2 * MOST}), self.clock)
        self.shard.core.rounds = Rounds(MOST, ROOM_BYTES, self.clock.monotonic)
        new_table(self.shard)
        self.sequences = 0
        self.open: dict[str, tuple[float, dict[int, Push]]] = {}
        self.told: dict[Push, str] = {}
        self.sums = {id_: 0 for ids in IDS.values() for id_ in ids}
        self.version = 0

    def teardown(self) -> None:
        self.shard.close()

    # what is done

    def join(self, push: Push) -> Push:
        expected = self.expect(push)
        with self.shard.look_ahead(push.ids) as ahead:
            try:
                push.joined = self.shard.rounds.join(push.place, 1.0, push.write, ahead, push.grads)
                found = push.outcome
            except ps.PsError as error:
                found = type(error).__name__
        assert found == expected
        return push

    def expect(self, push: Push) -> str:
        group, ranks = push.group, RANKS[push.group]
        since, here = self.open.get(group, (self.clock.now, {}))
        others = {rank: other for rank, other in here.items() if rank != push.rank}
        if any(other.number != push.number for other in others.values()):
            return "InvalidArgument"
        if push.rank in here:
            same = here[push.rank].sequence == push.sequence
            self.told[here.pop(push.rank)] = "Unavailable" if same else "SequenceConflict"
        if len(others) + 1 == ranks:
            self.open.pop(group, None)
            for part in [*others.values(), push]:
                for id_ in IDS[group][: part.rows]:
                    self.sums[id_] += part.value
                self.told[part] = "applied"
            self.version += 1
            return "applied"
        of_round = (push.rows + sum(part.rows for part in others.values())) * ROW_BYTES
        if of_round > ROOM_BYTES * min(0.75, (ranks - 1) / ranks):
            self.put_out(group)
            return "ResourceExhausted"
        while self.is_full(push):
            if group not in self.open:
                self.open[group] = (self.clock.now, {})  # the newest
            overdue = [name for name, (at, _) in self.open.items() if name != group and self.clock.now - at >= FAIR_S]
            leaves = (overdue or list(self.open)[-1:])[0]
            self.put_out(leaves)
            if leaves == group:
                return "ResourceExhausted"
        self.open.setdefault(group, (since, {}))[1][push.rank] = push
        self.told[push] = "waits"
        return "waits"

    def is_full(self, push: Push) -> bool:
        waiting = [part for _, parts in self.open.values() for part in parts.values()]
        rows = push.rows + sum(part.rows for part in waiting)
        return len(waiting) >= MOST or rows * ROW_BYTES > ROOM_BYTES * 3 / 4

    def put_out(self, group: str) -> None:
        for part in self.open.pop(group, (0.0, {}))[1].values():
            self.told[part] = "ResourceExhausted"

    @rule(
        target=pushes,
        group=st.sampled_from(sorted(RANKS)),
        data=st.data(),
        number=st.sampled_from([1, 1, 1, 2]),
        rows=st.integers(1, 3),
    )
    def push(self, group: str, data: st.DataObject, number: int, rows: int) -> Push:
        """A new one: of a rank that has none here, or of one that was started again."""
        self.sequences += 1
        rank = data.draw(st.integers(0, RANKS[group] - 1))
        return self.join(Push(group, number, rank, 1 + self.sequences % 7, self.sequences, rows))

    @rule(push=pushes)
    def again(self, push: Push) -> None:
        """The same, whatever became of it: what was applied is answered, and not applied again."""
        repeat = replace(push, joined=None)
        if self.was_applied(push):
            with self.shard.look_ahead(push.ids) as ahead:
                again = self.shard.rounds.join(push.place, 1.0, push.write, ahead, push.grads)
                assert again.outcome.result().repeated
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
        (self.shard.rounds.expire if expires else self.shard.rounds.leave)(push.joined)
        if self.told.get(push) == "waits":
            self.told[push] = "DeadlineExceeded" if expires else "CancelledError"
            parts = self.open[push.group][1]
            del parts[push.rank]
            if not parts:
                del self.open[push.group]

    @rule(seconds=st.sampled_from([1.0, FAIR_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(group=st.sampled_from(["", *RANKS]))
    def press(self, group: str) -> None:
        """A message found no room, one of a part of that group's or one of no round."""
        with suppress(ps.ResourceExhausted), self.shard.rounds.give_way(group):
            raise ps.ResourceExhausted("no room", 0.1)
        others = [name for name in self.open if name != group]
        overdue = [name for name in others if self.clock.now - self.open[name][0] >= FAIR_S]
        newer = others[-1:] if group in self.open and list(self.open)[-1] != group else []
        for leaves in (overdue or newer)[:1]:
            self.put_out(leaves)

    @precondition(lambda self: self.open)
    @rule()
    def first(self) -> None:
        """The round that opened first is completed when its other ranks come, whatever waits beside it. Their parts are
        small: of a round that is too large for the shard that cannot be said."""
        group, (_, parts) = next(iter(self.open.items()))
        number = next(iter(parts.values())).number
        for rank in set(range(RANKS[group])) - set(parts):
            self.sequences += 1
            last = self.join(Push(group, number, rank, 1, self.sequences))
            if group not in self.open:
                break
        assert last.joined is None or last.outcome == "applied"

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
        rows = read(self.shard, "t", list(self.sums))[:, 0]
        assert rows.tolist() == [-float(total) for total in self.sums.values()]
        assert self.shard.commit.pushes == self.version


RoundsMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
TestRounds = RoundsMachine.TestCase
