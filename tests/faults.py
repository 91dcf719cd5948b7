"""A network that loses, repeats and delays: a Transport around another one, for Connection(address, open_transport).

Every fault is one that a real network or a restarting client can produce, and every one leaves the caller with the
same question: did the shard apply it? What goes wrong when is drawn from a seed.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ps.client.connection.transport import Begun, Transport, open_transport
from ps.errors import PsError, Unavailable
from ps.wire.methods import METHODS, Method

LATE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Rates:
    """The probability of each fault for a call."""

    drop_request: float = 0.0
    """The shard never sees it."""
    drop_response: float = 0.0
    """The shard has done it, the caller is told that nobody answered."""
    repeat: float = 0.0
    """The shard sees it twice, the caller gets the second answer."""
    late: float = 0.0
    """The caller is told that nobody answered; the shard sees the request after some that were sent after it."""
    methods: tuple[Method, ...] = METHODS
    """The others are left alone."""


class Faults:
    """Decides and counts, for all transports of a client. Threads: any."""

    def __init__(self, seed: int, rates: Rates) -> None:
        self.rates = rates
        self.seen: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def open(self, address: str) -> Transport:
        """For `Connection(address, open_transport=faults.open)`."""
        return FaultyTransport(open_transport(address), self)

    def next_fault(self, method: Method) -> str:
        """The fault of the next call, "" for none."""
        if method not in self.rates.methods:
            return ""
        with self._lock:
            drawn = self._random.random()
            for kind in ("drop_request", "drop_response", "repeat", "late"):
                drawn -= getattr(self.rates, kind)
                if drawn < 0:
                    self.seen[kind] += 1
                    return kind
        return ""


class FaultyTransport:
    """One address."""

    def __init__(self, inner: Transport, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults
        self._late: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def unary(self, method: Method, data: bytes, timeout_s: float) -> bytes:
        return self._answered(method, lambda limit_s: self._inner.unary(method, data, limit_s), timeout_s)

    def stream_in(self, method: Method, chunks: Iterable[bytes], timeout_s: float, begun: Begun | None = None) -> bytes:
        held = list(chunks)
        return self._answered(
            method, lambda limit_s: self._inner.stream_in(method, iter(held), limit_s, begun), timeout_s
        )

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        """A lost response is one that ends after its first message."""
        fault = self._faults.next_fault(method)
        if fault == "drop_request":
            raise Unavailable("lost on the way there")
        for chunk in self._inner.stream_out(method, data, timeout_s):
            yield chunk
            if fault in ("drop_response", "late"):
                raise Unavailable("broken off on the way back")

    def close(self) -> None:
        self._deliver_late()
        self._inner.close()

    def _answered(self, method: Method, call: Callable[[float], bytes], timeout_s: float) -> bytes:
        fault = self._faults.next_fault(method)
        if fault == "drop_request":
            raise Unavailable("lost on the way there")
        if fault == "late":
            with self._lock:
                self._late.append(lambda: call(LATE_TIMEOUT_S))
            raise Unavailable("overtaken on the way there")
        answer = call(timeout_s)
        if fault == "drop_response":
            raise Unavailable("lost on the way back")
        if fault == "repeat":
            answer = call(timeout_s)
        else:
            self._deliver_late()
        return answer

    def _deliver_late(self) -> None:
        """After the call that came after it: the shard may have seen a retry of it by now, or other writes."""
        with self._lock:
            late, self._late = self._late, []
        for send in late:
            try:
                send()
            except PsError:
                self._faults.seen["late_refused"] += 1  # nobody is left to hear it
