"""A trainer's clock in a group: it counts steps, and waits when it is too far ahead of the slowest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ps.client.connection.retry import Deadline
from ps.errors import DeadlineExceeded, InvalidArgument
from ps.round import check_member
from ps.v1 import control_pb2 as pb
from ps.wire import codec, methods

if TYPE_CHECKING:
    from ps.client.session import Session

FINISHED = (1 << 63) - 1
"""The clock of a trainer that makes no more steps."""
ASK_AGAIN_S = 0.02


class Clock:
    """A trainer's clock, which `client.clock` returns. Threads: one."""

    def __init__(self, session: Session, group: str, rank: int, ranks: int, max_staleness: int) -> None:
        check_member(group, rank, ranks)
        if isinstance(max_staleness, bool) or not isinstance(max_staleness, int) or max_staleness < 0:
            raise InvalidArgument(
                f"max_staleness={max_staleness!r}: give how many steps a trainer may be ahead, 0 or more"
            )
        self.group = group
        self.rank = rank
        self.max_staleness = max_staleness
        self.clocks = [0] * ranks
        """Steps made by each rank, as far as is known here; FINISHED for a rank that makes no more."""
        self.waited_s = 0.0
        """Seconds that calls of `advance` have taken."""
        self._session = session

    def advance(self, steps: int, *, timeout_s: float | None = None) -> None:
        """Notes that this trainer has made so many steps; returns when every other trainer of the group has made at
        least `steps - max_staleness`. Raises DeadlineExceeded, which names those that have not; it may be called
        again."""
        if not self.clocks[self.rank] <= steps < FINISHED:
            raise InvalidArgument(
                f"{steps} steps: this clock is at {self.clocks[self.rank]}, and it never goes back: "
                "give as many or more"
            )
        self.clocks[self.rank] = steps
        deadline = self._session.deadline(timeout_s)
        clock = deadline.clock
        started_s = clock.monotonic()
        try:
            while True:
                self._exchange(deadline, self.max_staleness)
                if min(self.clocks) >= steps - self.max_staleness:
                    return
                if deadline.remaining_s() <= ASK_AGAIN_S:
                    raise DeadlineExceeded(f"no answer within {deadline.timeout_s:g} s")
                clock.sleep(ASK_AGAIN_S)
        except DeadlineExceeded as error:
            raise DeadlineExceeded(self._behind(steps, deadline.timeout_s)) from error
        finally:
            self.waited_s += clock.monotonic() - started_s

    def finish(self, *, timeout_s: float | None = None) -> None:
        """Notes that this trainer makes no more steps, so that the others do not wait for it."""
        self.clocks[self.rank] = FINISHED
        self._exchange(self._session.deadline(timeout_s), max_staleness=FINISHED)

    def _exchange(self, deadline: Deadline, max_staleness: int) -> None:
        request = pb.AdvanceRequest(group=self.group, rank=self.rank, clocks=self.clocks, max_staleness=max_staleness)
        answer = self._session.ask_coordinator(methods.ADVANCE, lambda _: request, deadline)
        told = codec.parse(pb.AdvanceResponse, answer).clocks
        self.clocks = [max(clock, now) for clock, now in zip(self.clocks, told, strict=True)]

    def _behind(self, steps: int, timeout_s: float) -> str:
        behind = {rank: clock for rank, clock in enumerate(self.clocks) if clock < steps - self.max_staleness}
        if not behind:
            return f"group {self.group!r}: the service did not answer within {timeout_s:g} s"
        which = ", ".join(f"rank {rank} has made {clock}" for rank, clock in behind.items())
        return (
            f"group {self.group!r}: rank {self.rank} has made {steps} steps and may be {self.max_staleness} ahead; "
            f"after {timeout_s:g} s {which}. Do they run? A trainer that ends in order says so (`finish`)"
        )
