"""Messages as a broken or a hostile client could send them: good ones, changed where it may hurt.

A message is drawn by a seed: a request of some method as a client makes it, then some changes to its fields (more of
them, other counts and lengths, long names, unknown ones), then some to its bytes. Sizes go up to MAX_BYTES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from ps.wire.methods import METHODS, Method, Shape
from tests.messages.changes import CHANGES
from tests.messages.good import GOOD
from tests.messages.parts import MAX_BYTES, TABLES, Parts

__all__ = ["TABLES", "Maker", "Sent"]

OF_CHECKPOINTS = (
    *(methods.CHECKPOINT, methods.CHECKPOINT_PART, methods.KEEP_PART),
    *(methods.RESTORE, methods.RESTORE_PART),
)
"""They cost what the rows cost, not what the message does; tests/loopback/test_errors.py sends them broken."""


@dataclass(frozen=True)
class Sent:
    """One call: the messages of its stream, or the only one."""

    method: Method
    messages: list[bytes]
    what: str
    """How it was made."""

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.messages))


class Maker:
    """Draws messages for a service with these TABLES."""

    def __init__(self, header: pb.Header, seed: int) -> None:
        self._parts = Parts(header, seed)

    def message(self) -> Sent:
        """The next one."""
        rng = self._parts.random
        method = rng.choice([method for method in METHODS if method not in OF_CHECKPOINTS])
        messages, done = GOOD[method](self._parts), [] if rng.random() < 0.1 else self._changes()
        for change in done:
            messages = change(self._parts, messages)
        return Sent(method, self._encoded(method, messages), ", ".join(change.__name__ for change in done) or "good")

    def _changes(self) -> list[Callable[[Parts, list[Any]], list[Any]]]:
        return self._parts.random.choices(CHANGES, k=self._parts.random.randint(1, 3))

    def _encoded(self, method: Method, messages: Sequence[Message | bytes]) -> list[bytes]:
        data = [one if isinstance(one, bytes) else one.SerializeToString() for one in messages]
        data = [one[:MAX_BYTES] for one in data]
        return data if method.shape is Shape.STREAM_IN else data[:1] or [b""]
