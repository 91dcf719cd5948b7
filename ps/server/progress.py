"""Keeps the clocks of the trainers of a group, and bounds how far one may be ahead of another.

This is soft state: each time, a trainer sends what it knows of all clocks, and is sent what is known here. So after a
restart it is learned again from the first trainer of each group that asks.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ps.errors import InvalidArgument
from ps.round import check_member
from ps.server.gate.dispatch import CONTROL_CALLS
from ps.v1 import control_pb2 as pb
from ps.wire import requests

WAIT_S = 0.5
"""Seconds after which a call that must wait is answered: the client asks again, or has given up."""
MAX_GROUPS = 1024
MAX_CLOCKS = 1 << 16
"""The most clocks of all groups together; each takes 44 bytes here. Beyond either bound the groups heard longest ago
are forgotten."""
MAX_CLOCK = (1 << 63) - 1


class Progress:
    """Serves Control.Advance. Threads: any."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._max_waiting = CONTROL_CALLS // 2
        self._wait_s = wait_s
        self._waiting = 0
        self._groups: dict[str, list[int]] = {}  # the one heard most recently last
        self._moved = threading.Condition()

    def advance(self, data: bytes) -> bytes:
        """Notes the clocks that the caller knows; returns all clocks as soon as the caller may go on, or after
        WAIT_S."""
        request = requests.control(pb.AdvanceRequest, data)
        check_member(request.group, request.rank, len(request.clocks))
        with self._moved:
            clocks = self._merge(request.group, request.rank, request.clocks)
            needed = request.clocks[request.rank] - request.max_staleness
            if min(clocks) < needed and self._waiting < self._max_waiting:
                self._waiting += 1
                try:
                    self._moved.wait_for(lambda: min(clocks) >= needed, self._wait_s)
                finally:
                    self._waiting -= 1
            return pb.AdvanceResponse(clocks=clocks).SerializeToString()

    def _merge(self, group: str, rank: int, said: Sequence[int]) -> list[int]:
        """Merges clocks into the group's and returns these; calls that wait see every change."""
        known = self._groups.get(group) or [0] * len(said)
        if len(known) != len(said):
            raise InvalidArgument(f"group {group!r} has {len(known)} ranks; rank {rank} says that it has {len(said)}")
        if said[rank] < known[rank]:
            raise InvalidArgument(
                f"rank {rank} of group {group!r} has made {known[rank]} steps and says {said[rank]} now: a run that "
                "starts again needs a group name of its own"
            )
        if max(said) > MAX_CLOCK:
            raise InvalidArgument(f"a clock of {max(said)} steps: the most is {MAX_CLOCK}")
        known[:] = map(max, known, said)
        self._groups.pop(group, None)
        self._groups[group] = known
        while len(self._groups) > MAX_GROUPS or sum(map(len, self._groups.values())) > MAX_CLOCKS:
            del self._groups[next(iter(self._groups))]
        self._moved.notify_all()
        return known
