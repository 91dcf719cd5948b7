"""Synchronous pushes: the parts of a round wait here until the last of its ranks has come.

    rank 1 --join--> waits            rank 0 --join--> waits            rank 2 --join--> all here: summed, applied once
                       <------------------------ the same answer to all ------------------------'

Everything is done by the engine thread, and no thread waits: the result of a part is its `outcome`. A part is here for
as long as its call lasts; when the call gives up, the part leaves and nothing of it is applied. So waiting gradients
are counted in the budget of messages under way, as those of any call.

A rank has one part. Another that comes for the rank takes its place: a trainer that was started again need not wait
until the network notices that it was gone. Where two trainers are alive and both claim a rank, the one that came last
has it, and the other is told.

The parts that wait are bounded. At the bound a whole round leaves, with a hint to retry, so that two groups do not each
keep half of the room and wait for the other half. It is the round that opened last, but one that has been open for
FAIR_S leaves before that. So rounds that are complete soon go through in the order in which they began, and others give
way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ps.errors import DeadlineExceeded, InvalidArgument, PsError, ResourceExhausted, Unavailable
from ps.round import Round
from ps.shard.writes.parts import Waiting, check_fits, taken_by

RETRY_S = 0.1
FAIR_S = 5.0
"""Seconds for which an open round has room before those that opened later: more than a client waits between two
attempts."""


@dataclass
class _Open:
    """An open round, of which at least one part waits."""

    since: float
    parts: dict[int, Waiting] = field(default_factory=dict)


class Rounds:
    """The open rounds, at most one for each group. Nothing is kept of a group without waiting parts."""

    def __init__(self, most: int, room_bytes: int | None, clock: Callable[[], float]) -> None:
        """most: how many parts may wait. room_bytes: the room of all messages, of which parts may have three quarters;
        None: no bound. clock: decides only which round is asked to retry."""
        self._most = most
        self._room_bytes = room_bytes
        self._clock = clock
        self._open: dict[str, _Open] = {}  # the one that opened first first
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many parts wait."""
        return sum(len(each.parts) for each in self._open.values())

    @property
    def nbytes(self) -> int:
        """Bytes of the parts that wait."""
        return sum(part.nbytes for each in self._open.values() for part in each.parts.values())

    def check(self, place: Round) -> None:
        """Raises InvalidArgument if so many ranks could never come together here."""
        if place.ranks - 1 > self._most:
            raise InvalidArgument(
                f"{place}: {place.ranks} ranks would have {place.ranks - 1} pushes wait, and this shard has room for "
                f"{self._most}: set limits.max_requests to {2 * place.ranks} or more"
            )

    def join(self, waiting: Waiting) -> list[Waiting]:
        """Adds a part. Returns the parts of all ranks, by rank, if this was the last of them; [] while others are
        missing.

        It takes the place of another part of its rank. Raises InvalidArgument, LengthMismatch, SequenceConflict or
        Unavailable, and then the parts that wait wait on; or ResourceExhausted, and then its round has left.
        """
        place = waiting.place
        if self._closed:
            raise Unavailable("the shard is stopping")
        here = self._parts(place.group)
        others = [part for rank, part in here.items() if rank != place.rank]
        if others:
            check_fits(waiting, others[0])
        self._make_way(waiting)
        if len(others) + 1 < place.ranks:
            self._make_room(waiting)
            self._open.setdefault(place.group, _Open(self._clock())).parts[place.rank] = waiting
            return []
        self._open.pop(place.group, None)
        return sorted([*others, waiting], key=lambda part: part.place.rank)

    def leave(self, waiting: Waiting) -> None:
        """Removes a part if it still waits; its outcome is not reported."""
        if self._missing(waiting):
            self._remove(waiting)
            waiting.outcome.cancel()

    def expire(self, waiting: Waiting) -> None:
        """Removes a part whose time is over: its outcome is a DeadlineExceeded that names the missing ranks."""
        missing, place = self._missing(waiting), waiting.place
        if missing:
            self._remove(waiting)
            waiting.outcome.set_exception(
                DeadlineExceeded(
                    f"{place}: ranks {missing} of {place.ranks} have not pushed within {waiting.wait_s:.3g} s; nothing "
                    "was applied. Are they running? The same push, sent again, waits for them again"
                )
            )

    def give_way(self, group: str) -> None:
        """Ends a round because a message found no room: one that has been open for long; or, for a part of a round that
        opened before, the newest."""
        others = [name for name in self._open if name != group]
        overdue = self._overdue(others)
        newer = others and group in self._open and next(reversed(self._open)) != group
        if overdue or newer:
            self._put_out((overdue or others[-1:])[0], partial(_no_room, self._full(), RETRY_S))

    def close(self) -> None:
        """Refuses all parts, those that wait and those to come."""
        self._closed = True
        self.end(lambda place: Unavailable(f"{place}: the shard is stopping"))

    def end(self, error: Callable[[Round], PsError]) -> None:
        """Ends all rounds with this error."""
        for group in list(self._open):
            self._put_out(group, error)

    def _parts(self, group: str) -> dict[int, Waiting]:
        return self._open[group].parts if group in self._open else {}

    def _missing(self, waiting: Waiting) -> list[int]:
        """Returns the ranks that a part waits for; [] if it does not wait here any more."""
        here = self._parts(waiting.place.group)
        if here.get(waiting.place.rank) is not waiting:
            return []
        return [rank for rank in range(waiting.place.ranks) if rank not in here]

    def _remove(self, waiting: Waiting) -> None:
        here = self._parts(waiting.place.group)
        del here[waiting.place.rank]
        if not here:
            del self._open[waiting.place.group]

    def _put_out(self, group: str, error: Callable[[Round], PsError]) -> None:
        """Removes all parts of a round, of which nothing is applied."""
        if group in self._open:
            for waiting in self._open.pop(group).parts.values():
                waiting.outcome.set_exception(error(waiting.place))

    def _make_way(self, waiting: Waiting) -> None:
        """Ends the part that its rank has here, if any. The round keeps its place among the others."""
        here, place = self._parts(waiting.place.group), waiting.place
        if place.rank in here:
            error = taken_by(waiting, here[place.rank])
            here.pop(place.rank).outcome.set_exception(error)

    def _has_room(self, waiting: Waiting) -> bool:
        if self.waiting >= self._most:
            return False
        return self._room_bytes is None or self.nbytes + waiting.nbytes <= self._room_bytes // 4 * 3

    def _check_size(self, waiting: Waiting) -> None:
        """Raises ResourceExhausted, to all parts of a round, if ranks with as many bytes each could never come
        together."""
        place, here = waiting.place, self._parts(waiting.place.group)
        nbytes = waiting.nbytes + sum(part.nbytes for part in here.values())
        if self._room_bytes is None or nbytes <= self._room_bytes * min(0.75, (place.ranks - 1) / place.ranks):
            return
        why = (
            f"{len(here) + 1} of {place.ranks} ranks have sent {nbytes:,} bytes, the sums included, and all of them "
            f"may take {self._room_bytes:,} (a share of memory.ram_bytes). Nothing was applied: make batches smaller, "
            "or raise memory.ram_bytes"
        )
        self._put_out(place.group, partial(_no_room, why, None))
        raise _no_room(why, None, place)

    def _make_room(self, waiting: Waiting) -> None:
        """Ends other rounds, or the part's own, and then raises ResourceExhausted."""
        group = waiting.place.group
        self._check_size(waiting)
        while not self._has_room(waiting):
            overdue = self._overdue([name for name in self._open if name != group])
            newest = next(reversed(self._open)) if group in self._open else group
            leaves = overdue[0] if overdue else newest
            error = partial(_no_room, self._full(), RETRY_S)
            self._put_out(leaves, error)
            if leaves == group:
                raise error(waiting.place)

    def _overdue(self, groups: Sequence[str]) -> list[str]:
        return [group for group in groups if self._clock() - self._open[group].since >= FAIR_S]

    def _full(self) -> str:
        return (
            f"there is no room: {self.waiting} pushes, of {self.nbytes:,} bytes, wait for the other ranks of their "
            f"rounds (half of limits.max_requests may, {self._most}, and a share of memory.ram_bytes); nothing of this "
            "was applied"
        )


def _no_room(why: str, retry_after_s: float | None, place: Round) -> ResourceExhausted:
    return ResourceExhausted(f"{place}: {why}", retry_after_s)
