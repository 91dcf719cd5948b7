"""An answer that is not there yet: a push that waits for the other ranks of its round holds no thread.

    thread of the call: the stream is read, the part joins its round --> a `Later`, and the thread is free
    engine: the last rank has come, or the part has left ------------> its outcome; whoever sends the answer takes it

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
    """Ends once: with an answer, an error, or because nobody waits for it any more. Threads: any."""

    def __init__(
        self,
        outcome: Future[Any],
        encode: Callable[[Any], bytes],
        wait_s: float,
        expire: Callable[[], None],
        give_up: Callable[[], None],
        held: ExitStack,
    ) -> None:
        """outcome: what `encode` makes the answer of. expire, give_up: have it end, soon, because `wait_s` are over or
        because nobody waits for it; they return at once, and do nothing after the end. held: let go of with it."""
        self.wait_s = wait_s
        self.expire = expire
        self.give_up = give_up
        self._outcome = outcome
        self._encode = encode
        self._held = held
        self._sent: Callable[[bytes], object] = len

    def within(self, call: ExitStack, sent: Callable[[bytes], object]) -> None:
        """Has it end inside of `call`, which counts and guards it, and `sent` told the answer."""
        call.push(self._held)
        self._held, self._sent = call, sent

    @property
    def ready(self) -> bool:
        """Whether `take` need not wait."""
        return self._outcome.done()

    def when_ready(self, then: Callable[[], object]) -> None:
        """Calls it once, on the thread that brings the outcome or on this one. It must not wait."""
        self._outcome.add_done_callback(lambda _: then())

    def take(self) -> bytes:
        """Returns the answer; to be called once. Raises PsError, or CancelledError where nobody waits for it any
        more."""
        outcome, self._outcome = self._outcome, _ENDED
        self.expire = self.give_up = _nothing  # what was sent is to be free now, and not when cycles are collected
        with self._held:
            answer = self._encode(outcome.result())
            self._sent(answer)
            return answer

    def wait(self) -> bytes:
        """Waits for the outcome, on a thread that may, and takes the answer; after `wait_s` the wait expires."""
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
    """What there is to do after the end."""
