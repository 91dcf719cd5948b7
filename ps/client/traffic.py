"""Counts the bytes that a client has sent and received."""

from __future__ import annotations

import threading
from typing import Any

from google.protobuf.message import Message

from ps.wire.kinds import Call, Moved
from ps.wire.methods import Method


class Traffic:
    """Bytes of messages by method and kind (`ps.wire.kinds`), as this client gave them to the network and got them from
    it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[str, Moved] = {}
        self._received: dict[str, Moved] = {}
        self.retries = 0

    def add(self, method: Method, call: Call) -> None:
        """Counts the messages of one call, whether it succeeded or not."""
        with self._lock:
            self._sent.setdefault(method.name, Moved()).add(call.sent)
            self._received.setdefault(method.name, Moved()).add(call.received)

    def answered(self, method: Method, message: Message) -> None:
        """Counts the kinds in an answer, or its head, whose bytes have been counted already."""
        with self._lock:
            self._received[method.name].said(message)

    def report(self) -> dict[str, Any]:
        """Returns a copy of the counters. The kinds of a method add up to its bytes."""
        with self._lock:
            return {
                "sent_bytes": {name: moved.total for name, moved in self._sent.items()},
                "received_bytes": {name: moved.total for name, moved in self._received.items()},
                "sent_by_kind": {name: moved.by_kind() for name, moved in self._sent.items()},
                "received_by_kind": {name: moved.by_kind() for name, moved in self._received.items()},
                "retries": self.retries,
            }
