"""What a client has sent and received."""

from __future__ import annotations

import threading
from typing import Any

from ps.wire.methods import Method


class Traffic:
    """Bytes of messages by method, as this client sent and received them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.sent: dict[str, int] = {}
        self.received: dict[str, int] = {}
        self.retries = 0

    def add(self, method: Method, sent: int = 0, received: int = 0) -> None:
        """Counts messages of one call."""
        with self._lock:
            self.sent[method.name] = self.sent.get(method.name, 0) + sent
            self.received[method.name] = self.received.get(method.name, 0) + received

    def report(self) -> dict[str, Any]:
        """A copy of the counters."""
        with self._lock:
            return {
                "sent_bytes": dict(self.sent),
                "received_bytes": dict(self.received),
                "retries": self.retries,
            }
