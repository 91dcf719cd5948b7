"""Waiting for what cannot be waited on: a condition of another thread that sets no event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ps.shard import Shard

LIMIT_S = 20.0


def until(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    """Returns as soon as the condition holds; fails if it never does."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.002)


@contextmanager
def busy_engine(shard: Shard) -> Iterator[threading.Event]:
    """A shard whose engine works on something until the event is set, or the block is left."""
    go, started = threading.Event(), threading.Event()
    shard.engine.submit(lambda: (started.set(), go.wait(LIMIT_S)))
    assert started.wait(LIMIT_S)
    try:
        yield go
    finally:
        go.set()
