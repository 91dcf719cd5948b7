"""An answer that comes later: a push that waits for the other ranks of its round holds no thread.

    thread of the call: the stream is read, the part joins its round --> a `Later`, and the thread is free
    engine: the last rank has come, or the part has left ------------> its outcome; the thread that sends the answer
        takes it

All that the call holds (its place in the counts, its bytes in the budget, its rows) is held until then.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import ExitStack
from typing import Any

_ENDED: Future[Any] = Future()
_ENDED.set_result(None)


class Later:
    """An answer that comes later. It ends once: with an answer, with an error, or because its caller waits no more.
    Threads: any."""

    def __init__(
        self,
        outcome: Future[Any],
        encode: Callable[[Any], bytes],
        wait_s: float,
        expire: Callable[[], None],
        give_up: Callable[[], None],
        held: ExitStack,
    ) -> None:
        """outcome: `encode` makes the answer of its result. expire, give_up: end the answer soon, because `wait_s`
        seconds are over or because its caller waits no more; they return at once, and do nothing after the end. held:
        is released when the answer ends."""
        self.wait_s = wait_s
        self.expire = expire
        self.give_up = give_up
        self._outcome = outcome
        self._encode = encode
        self._held = held
        self._sent: Callable[[bytes], object] = len

    def within(self, call: ExitStack, sent: Callable[[bytes], object]) -> None:
        """Lets the end run inside of `call`, which counts and guards it, and passes the answer to `sent`."""
        call.push(self._held)
        self._held, self._sent = call, sent

    @property
    def ready(self) -> bool:
        """Whether `take` returns without waiting."""
        return self._outcome.done()

    def when_ready(self, then: Callable[[], object]) -> None:
        """Calls a function once, on the thread that brings the outcome or on this one. The function must not wait."""
        self._outcome.add_done_callback(lambda _: then())

    def take(self) -> bytes:
        """Returns the answer; it may be called once. Raises PsError, or CancelledError if the caller waits no more."""
        outcome, self._outcome = self._outcome, _ENDED
        self.expire = self.give_up = _nothing  # what was sent is to be free now, and not when cycles are collected
        with self._held:
            answer = self._encode(outcome.result())
            self._sent(answer)
            return answer

    def wait(self) -> bytes:
        """Waits for the outcome, on a thread that may wait, and takes the answer; after `wait_s` seconds the answer
        expires."""
        try:
            self._outcome.exception(self.wait_s)
        except NotYet:
            self.expire()
        except CancelledError:
            pass  # `take` tells it
        except BaseException:  # Ctrl-C: in process this may be the trainer's own thread
            self.give_up()
            with self._held:
                raise
        return self.take()


def _nothing() -> None:
    """Does nothing: the answer has ended."""
