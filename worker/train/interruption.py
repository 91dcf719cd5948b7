"""Makes sure that a Ctrl-C is not lost.

Python raises KeyboardInterrupt wherever the main thread is. If that is a callback from C that cannot raise (a check of
a class inside pydantic, a finalizer, a callback of a weak reference), Python prints "Exception ignored in" and goes on,
and so would a run of hours.
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
        """Remembers that Ctrl-C was pressed and raises KeyboardInterrupt, as Python's own handler of the signal
        does."""
        self._pressed = True
        signal.default_int_handler(number, frame)

    def check(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed, in case the first one was lost."""
        if self._pressed:
            raise KeyboardInterrupt


@contextmanager
def remembered() -> Iterator[Interruption]:
    """Yields an Interruption that remembers Ctrl-C within the block. If another handler of the signal is installed, it
    stays."""
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
