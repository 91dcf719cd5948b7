"""Bodies of writes that are arriving. Their bytes count when they come, not when they are announced, so a body that
stalls holds only the bytes that have come.

Bodies that have come in part could wait for each other's bytes for ever. So only one body waits at a time, the oldest
of those that find no room, and not for long: a younger one is refused, with a hint to retry, and gives back what it
holds. The oldest of all is refused only after a second. So of bodies that each fit alone, however many there are, one
always gets through.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ps.errors import ResourceExhausted
from ps.runtime.clock import Clock
from ps.storage.budget.part import Part
from ps.storage.budget.room import RETRY_S

PATIENCE_S = 1.0
"""Seconds that a body waits for room."""
LOOK_S = 0.025
"""Seconds after which a waiting body looks for room again, because only other bodies signal when they free bytes."""
SMALL_BYTES = 64 << 10
"""Bodies up to this size need not let an older body that waits go first."""


class Arriving:
    """One body that is arriving."""

    def __init__(self, arrivals: Arrivals, number: int) -> None:
        self.number = number
        self.held = 0
        self._arrivals = arrivals
        self._ahead = 0

    def hold(self, n: int) -> None:
        """Holds so many bytes more, which have come or which the body is decoded to. May wait a second; raises
        ResourceExhausted, without a hint to retry if they would never fit."""
        known = min(n, self._ahead)
        self._ahead -= known
        self._arrivals.hold(self, n - known)

    def hold_ahead(self, n: int) -> None:
        """Holds the bytes of the unpacked ids. They count as bytes of the body, which mostly has more: the next so many
        bytes of the body are held already."""
        self.hold(n)
        self._ahead += n


class Arrivals:
    """The bodies of one shard. Threads: any."""

    def __init__(self, room: Part, clock: Clock) -> None:
        """clock: measures how long a body waits."""
        self._room = room
        self._clock = clock
        self._numbers = 0
        self._waits: Arriving | None = None
        self._changed = threading.Condition()

    @contextmanager
    def body(self) -> Iterator[Arriving]:
        """Yields a body, from its first byte until it has been applied."""
        with self._changed:
            self._numbers += 1
            arriving = Arriving(self, self._numbers)
        try:
            yield arriving
        finally:
            with self._changed:
                self._room.give(arriving.held)
                self._changed.notify_all()

    def hold(self, body: Arriving, n: int) -> None:
        """Does what `Arriving.hold` says, for one body."""
        with self._changed:
            until = self._clock.monotonic() + PATIENCE_S
            while True:
                refused = self._take(body, n)
                if refused is None:
                    return
                if refused.retry_after_s is None or self._clock.monotonic() >= until:
                    raise refused
                self._wait(body)

    def _take(self, body: Arriving, n: int) -> ResourceExhausted | None:
        """Takes bytes for a body; returns why it cannot have them now, if it cannot."""
        if n > SMALL_BYTES:
            self._check_turn(body)
        try:
            self._room.hold(n, body.held)
        except ResourceExhausted as refused:
            self._check_turn(body)
            return refused
        body.held += n
        return None

    def _check_turn(self, body: Arriving) -> None:
        if self._waits is not None and self._waits.number < body.number:
            raise ResourceExhausted(
                f"an older message waits for room already, and this one holds {body.held:,} bytes of it", RETRY_S
            )

    def _wait(self, body: Arriving) -> None:
        self._waits, before = body, self._waits
        if before is not None:
            self._changed.notify_all()  # it is younger, and is refused
        try:
            self._clock.wait(self._changed, LOOK_S)
        finally:
            if self._waits is body:
                self._waits = None
