"""How the pushes of several trainers go together.

    Asynchronous()                     each as it comes
    Synchronous(group)                 all trainers' gradients of a step are summed and applied once
    Bounded(group, max_staleness=S)    each as it comes; nobody begins a step more than S steps ahead of the slowest

The mode does not concern the dense part: DDP keeps it in step in any mode. With `Asynchronous` the whole is called
hybrid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ps import Client, Round
from ps.errors import InvalidArgument
from ps.round import check_member
from ps.seconds import seconds

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Group:
    """This trainer's place in a group of trainers."""

    name: str
    """A name that only this run and this collection have, the same on all of its trainers."""
    rank: int
    ranks: int
    patience_s: float = PATIENCE_S
    """How long a trainer waits for the others before it raises DeadlineExceeded."""

    def __post_init__(self) -> None:
        check_member(self.name, self.rank, self.ranks)
        seconds(self.patience_s, "patience_s")


class Pace(Protocol):
    """One collection's part in its group. Only the trainer's thread may call it."""

    in_turn: bool
    """Whether a step begins only when the push before it is applied, so that pushes go one after the other."""
    in_rounds: bool
    """Whether every step of every trainer is a part of a round, also a step without gradients."""
    patience_s: float | None
    """The deadline of a push; None: the client's."""

    def begin(self, steps: int) -> None:
        """Waits until this trainer may make its next step, `steps` having been made; called before the rows are pulled.
        Raises DeadlineExceeded."""

    def round(self) -> Round | None:
        """Returns the round that the next push belongs to; None outside of rounds."""

    def check_pull_ahead(self, batches: int) -> None:
        """Raises InvalidArgument unless rows may be pulled so many batches before they are used."""

    def finish(self) -> None:
        """Tells the group that this trainer makes no more steps, so that the others do not wait for it."""


class Mode(Protocol):
    """How the pushes of several trainers go together: the `mode` of a collection."""

    def start(self, client: Client) -> Pace:
        """Begins the pace of one collection."""


@dataclass(frozen=True)
class Asynchronous:
    """Pushes are applied as they come, and other trainers see a push as soon as it is applied."""

    def start(self, client: Client) -> Pace:
        """Begins the pace of one collection."""
        return _Free()


@dataclass(frozen=True)
class Synchronous:
    """The gradients of all trainers for a step are summed, in the order of their ranks, and applied once: as one
    process does with the batches of all. Every trainer makes as many steps."""

    group: Group
    steps: int = 0
    """How many steps the group has made already, for a trainer that is started again and goes on where the others
    are."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InvalidArgument(f"steps={self.steps}: give the number of steps that the group has made, or 0")

    def start(self, client: Client) -> Pace:
        """Begins the pace of one collection."""
        return _InRounds(self.group, self.steps)


@dataclass(frozen=True)
class Bounded:
    """Pushes are applied as they come; a trainer that has made more than `max_staleness` steps more than the slowest
    waits before its next step. Call the collection's `finish` after a trainer's last step."""

    group: Group
    max_staleness: int

    def start(self, client: Client) -> Pace:
        """Begins the pace of one collection."""
        return _Clocked(client, self)


ASYNCHRONOUS = Asynchronous()


class _Free:
    in_turn = False
    in_rounds = False
    patience_s: float | None = None

    def begin(self, steps: int) -> None:
        pass

    def round(self) -> Round | None:
        return None

    def check_pull_ahead(self, batches: int) -> None:
        pass

    def finish(self) -> None:
        pass


class _InRounds(_Free):
    in_turn = True
    in_rounds = True

    def __init__(self, group: Group, rounds: int) -> None:
        self.patience_s = group.patience_s
        self._group = group
        self._rounds = rounds

    def round(self) -> Round:
        self._rounds += 1
        return Round(self._group.name, self._rounds, self._group.rank, self._group.ranks)

    def check_pull_ahead(self, batches: int) -> None:
        if batches:
            raise InvalidArgument(
                f"pull_ahead={batches}: rows pulled before the previous step is applied are not those that one "
                "process would train on. Use Bounded or Asynchronous, or pull_ahead=0"
            )


class _Clocked(_Free):
    in_turn = True

    def __init__(self, client: Client, mode: Bounded) -> None:
        group = mode.group
        self._wait_s = group.patience_s
        self._clock = client.clock(group.name, rank=group.rank, ranks=group.ranks, max_staleness=mode.max_staleness)

    def begin(self, steps: int) -> None:
        self._clock.advance(steps, timeout_s=self._wait_s)

    def finish(self) -> None:
        self._clock.finish()
