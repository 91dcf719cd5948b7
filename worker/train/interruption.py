"""Ctrl-C that cannot get lost.

Python raises KeyboardInterrupt wherever the main thread is. Where that is a callback from C that cannot raise (a check
of a class inside pydantic, a finalizer, a callback of a weak reference) it prints "Exception ignored in" and goes on,
and a run of hours would too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Remembers that Ctrl-C was pressed, beside the KeyboardInterrupt that it raises."""

    def __init__(self) -> None:
        self._pressed = False

    def press(self, number: int, frame: FrameType | None) -> None:
        """Remembers it and does what Python does: the handler of a signal."""
        self._pressed = True
        signal.default_int_handler(number, frame)

    def check(self) -> None:
        """Raises KeyboardInterrupt if it was pressed, in case the first one got lost."""
        if self._pressed:
            raise KeyboardInterrupt


@contextmanager
def remembered() -> Iterator[Interruption]:
    """Yields what remembers Ctrl-C within the block. Where somebody else handles it already, it stays theirs."""
    interruption = Interruption()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interruption
        return
    signal.signal(signal.SIGINT, interruption.press)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
