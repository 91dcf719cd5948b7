"""Sends answers that come later, and ends the wait for them when its time is over or the call has ended.

gRPC's sync server frees the thread of a call whose handler is marked `experimental_non_blocking`, as that of its own
health service is, when the handler returns; any thread may answer afterwards. Sending waits until the network has taken
the message. So each answer has a thread for that moment, which is neither the engine's nor one that another client
could hold up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import NoReturn

import grpc

from ps.errors import PsError
from ps.runtime.clock import Clock
from ps.server.later import Later
from ps.wire.status import code_of, details_of, to_metadata

SENDERS = 8
"""Threads that are kept to send answers."""

Send = Callable[[bytes | None], None]
"""A function of gRPC: sends a message, or, given None, the status that the context has."""


class Answers:
    """Sends the later answers of one server."""

    def __init__(self, clock: Clock) -> None:
        self._takes = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._sends = ThreadPoolExecutor(SENDERS, thread_name_prefix="answers")
        self._free = threading.Semaphore(SENDERS)
        self._expiries = Expiries(clock)

    def send(self, answer: Later, context: grpc.ServicerContext, send: Send) -> None:
        """Sends an answer when it is ready."""
        self._expiries.add(answer)
        # The engine tells; it is not to do more than that.
        answer.when_ready(lambda: self._takes.submit(self._take, answer, context, send))
        end_with(context, answer)

    def close(self) -> None:
        """Ends the threads after the server has stopped: answers that are left have no caller any more."""
        self._expiries.close()
        self._takes.shutdown()
        self._sends.shutdown()

    def _take(self, answer: Later, context: grpc.ServicerContext, send: Send) -> None:
        """Takes one answer after the other, without waiting, and has it sent. An error is sent without waiting, too."""
        self._expiries.discard(answer)
        try:
            data = answer.take()
        except PsError as error:
            set_status(context, error)
            send(None)
        except CancelledError:
            return  # the call has ended already
        else:
            self._send_soon(data, send)

    def _send_soon(self, data: bytes, send: Send) -> None:
        """Sends on one of a few threads, or on a new one if all are busy or held up, so that no answer waits for
        another."""
        if not self._free.acquire(blocking=False):
            threading.Thread(target=_send, args=(data, send), name="answer", daemon=True).start()
            return

        def run() -> None:
            try:
                _send(data, send)
            finally:
                self._free.release()

        self._sends.submit(run)


class Expiries:
    """Lets answers expire: one thread for all of them, which sleeps until the next is due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at: dict[Later, float] = {}
        self._sleeps_until = 0.0
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, answer: Later) -> None:
        """Starts an answer's `wait_s`."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="expiries", daemon=True)
                self._thread.start()
            self._at[answer] = at = self._clock.monotonic() + answer.wait_s
            if at < self._sleeps_until:
                self._changed.notify()

    def discard(self, answer: Later) -> None:
        """Removes an answer that has ended."""
        with self._changed:
            self._at.pop(answer, None)

    def close(self) -> None:
        """Ends the thread: nothing expires any more."""
        with self._changed:
            self._closed = True
            self._at.clear()
            self._changed.notify()

    def _watch(self) -> None:
        while (over := self._next()) is not None:
            for answer in over:
                answer.expire()

    def _next(self) -> list[Later] | None:
        """Waits until some answers are due and returns them; None at the end."""
        with self._changed:
            while not self._closed:
                now = self._clock.monotonic()
                over = [answer for answer, at in self._at.items() if at <= now]
                for answer in over:
                    del self._at[answer]
                if over:
                    return over
                self._sleeps_until = min(self._at.values(), default=now + threading.TIMEOUT_MAX / 2)
                self._clock.wait(self._changed, self._sleeps_until - now)
            return None


def end_with(context: grpc.ServicerContext, answer: Later) -> None:
    """Gives up an answer when its call ends: the client is gone, has cancelled, or its deadline has passed."""
    if not context.add_callback(answer.give_up):
        answer.give_up()


def _send(data: bytes, send: Send) -> None:
    """Sends a message and waits until the network has taken it."""
    send(data)
    send(None)


def set_status(context: grpc.ServicerContext, error: PsError) -> None:
    """Sets the status that a call ends with."""
    context.set_trailing_metadata(to_metadata(error))
    context.set_code(code_of(error))
    context.set_details(details_of(error))


def abort(context: grpc.ServicerContext, error: PsError) -> NoReturn:
    """Ends a call with an error, on its own thread."""
    context.set_trailing_metadata(to_metadata(error))
    context.abort(code_of(error), details_of(error))
