"""Synchronous pushes: those of a round wait here until the last of its ranks has come.

    rank 1 --join--> waits            rank 0 --join--> waits            rank 2 --join--> all here: summed, applied once
                       <------------------------ the same answer to all ------------------------'

Everything is done by the engine thread; who waits does so on a thread of its own, for the `outcome` of its part. A part
is here for as long as its call lasts: one that gives up leaves, and nothing of it is applied. So waiting gradients are
counted where those of any call are, in the budget of messages under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Self

from ps.errors import (
    DeadlineExceeded,
    InvalidArgument,
    LengthMismatch,
    ResourceExhausted,
    SequenceConflict,
    Unavailable,
)
from ps.round import Round
from ps.shard.combine import combined
from ps.shard.ledger import WriteId
from ps.shard.look_ahead import LookAhead
from ps.shard.requests import Gradients, PushResult, TableIds
from ps.table import Table

RETRY_S = 0.1


@dataclass(frozen=True, eq=False)
class Part:
    """What one call pushes."""

    write: WriteId
    ahead: LookAhead
    gradients: Sequence[Gradients]
    pulled_version: int = 0


@dataclass(frozen=True, eq=False)
class Waiting:
    """One rank's part of a round, with the ids that its gradients are of."""

    place: Round
    part: Part
    ids: Sequence[TableIds]
    wait_s: float
    outcome: Future[PushResult] = field(default_factory=Future)

    @classmethod
    def ended(cls, place: Round, part: Part, result: PushResult) -> Self:
        """One that need not wait."""
        made = cls(place, part, (), 0.0)
        made.outcome.set_result(result)
        return made


class Rounds:
    """The rounds that are open, at most one a group. A group that nobody waits in is not known: it has no history."""

    def __init__(self, threads: int) -> None:
        """`threads`: that serve calls. A part that waits holds one."""
        self._most = max(threads - 2, 0)  # one for the part that completes a round, one for what is none
        self._open: dict[str, dict[int, Waiting]] = {}
        self._closed = False

    @property
    def waiting(self) -> int:
        """Parts that wait."""
        return sum(map(len, self._open.values()))

    def check(self, place: Round) -> None:
        """Raises InvalidArgument if so many ranks could never come together here."""
        if place.ranks - 1 > self._most:
            raise InvalidArgument(
                f"{place}: {place.ranks} ranks would wait on as many threads of this shard, which can spare "
                f"{self._most + 1}: set grpc_threads (and max_requests) to {place.ranks + 1} or more"
            )

    def join(self, waiting: Waiting) -> list[Waiting]:
        """Takes a part in. Those of all ranks, by rank, if this was the last of them; [] while others are missing.

        The same push again takes the place of the call before, which nobody waits for any more. Raises InvalidArgument,
        LengthMismatch, SequenceConflict, ResourceExhausted or Unavailable; the parts that wait already wait on.
        """
        place = waiting.place
        if self._closed:
            raise Unavailable("the shard is stopping")
        here = self._open.get(place.group, {})
        if here:
            self._check_fits(waiting, next(iter(here.values())))
        earlier = here.get(place.rank)
        if earlier is not None:
            if earlier.part.write != waiting.part.write:
                raise SequenceConflict(f"{place}: another push of rank {place.rank} waits there already")
            earlier.outcome.set_exception(Unavailable(f"{place}: rank {place.rank} has sent this push again"))
        elif len(here) + 1 < place.ranks and self.waiting >= self._most:
            raise ResourceExhausted(
                f"{place}: {self.waiting} pushes wait for others already, as many as this shard has threads for "
                "(grpc_threads)",
                RETRY_S,
            )
        here = self._open.setdefault(place.group, {})
        here[place.rank] = waiting
        if len(here) < place.ranks:
            return []
        del self._open[place.group]
        return [here[rank] for rank in range(place.ranks)]

    def leave(self, waiting: Waiting) -> None:
        """Takes a part out again, if it still waits: nobody hears of its outcome."""
        if self._missing(waiting):
            self._remove(waiting)
            waiting.outcome.cancel()

    def expire(self, waiting: Waiting) -> None:
        """The same at the end of its time: its outcome is a DeadlineExceeded that names the ranks that are missing."""
        missing, place = self._missing(waiting), waiting.place
        if missing:
            self._remove(waiting)
            waiting.outcome.set_exception(
                DeadlineExceeded(
                    f"{place}: ranks {missing} of {place.ranks} have not pushed within {waiting.wait_s:.3g} s; nothing "
                    "was applied. Are they running? The same push, sent again, waits for them again"
                )
            )

    def close(self) -> None:
        """Nobody waits any more, and nobody will."""
        self._closed = True
        for here in self._open.values():
            for waiting in here.values():
                waiting.outcome.set_exception(Unavailable(f"{waiting.place}: the shard is stopping"))
        self._open.clear()

    def _missing(self, waiting: Waiting) -> list[int]:
        """The ranks that a part waits for; [] where it does not wait here any more."""
        here = self._open.get(waiting.place.group, {})
        if here.get(waiting.place.rank) is not waiting:
            return []
        return [rank for rank in range(waiting.place.ranks) if rank not in here]

    def _remove(self, waiting: Waiting) -> None:
        here = self._open[waiting.place.group]
        del here[waiting.place.rank]
        if not here:
            del self._open[waiting.place.group]

    def _check_fits(self, waiting: Waiting, other: Waiting) -> None:
        place, there = waiting.place, other.place
        if place.ranks != there.ranks:
            raise InvalidArgument(
                f"{place}: rank {place.rank} says that there are {place.ranks} ranks, rank {there.rank} {there.ranks}"
            )
        if place.number != there.number:
            raise InvalidArgument(
                f"{place}: rank {there.rank} waits in round {there.number}. Every rank makes every step of its group, "
                "in order; a run that starts again needs a group name of its own"
            )
        mine, theirs = ([ids.table for ids in each.ids] for each in (waiting, other))
        if mine != theirs:
            raise LengthMismatch(f"{place}: rank {place.rank} pushes tables {mine}, rank {there.rank} {theirs}")


def sums_bytes(tables: Sequence[Table], waiting: Sequence[Waiting]) -> int:
    """The most that the sums of a round can take, float32."""
    sizes = (len(ids.ids_N) * table.config.dim for each in waiting for ids, table in zip(each.ids, tables, strict=True))
    return 4 * sum(sizes)


def summed(table: Table, number: int, waiting: Sequence[Waiting]) -> tuple[TableIds, Gradients]:
    """The `number`-th table's part of a round, of all ranks. Raises as a push does, and NonFiniteGradient."""
    ids, gradients = [each.ids[number] for each in waiting], [each.part.gradients[number] for each in waiting]
    for part_ids, part in zip(ids, gradients, strict=True):  # since it waits, the table may have been made anew
        table.check(len(part_ids.ids_N) if part.rows_R is None else len(part.rows_R), part.blocks)
    together = combined(ids, gradients, table.config.dim)
    table.check_ids(together[0].ids_N)
    return together
