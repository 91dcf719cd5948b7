"""Behaviors of gRPC methods: connect gRPC's calls to a dispatcher, each by a `Line` to its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from ps.errors import PsError, Unavailable
from ps.runtime.clock import Clock
from ps.server.answers import Answers, abort, end_with, set_status
from ps.server.gate.dispatch import Dispatcher
from ps.server.gate.lines import End, Line, Places
from ps.server.later import Later
from ps.wire.methods import Method


def on(pool: ThreadPoolExecutor, behavior: Callable[..., Any], non_blocking: bool = False) -> Callable[..., Any]:
    """Returns the behavior of a method, run by these threads. non_blocking: it gets a function to send answers with."""

    def run(*arguments: Any) -> Any:  # a method of an object takes no marks
        return behavior(*arguments)

    run.experimental_thread_pool = pool  # type: ignore[attr-defined]  # gRPC's way of saying it
    run.experimental_non_blocking = non_blocking  # type: ignore[attr-defined]
    return run


class Served:
    """One method's behavior."""

    def __init__(
        self, dispatcher: Dispatcher, method: Method, places: Places | None, answers: Answers, clock: Clock
    ) -> None:
        self._dispatcher = dispatcher
        self._method = method
        self._places = places
        self._answers = answers
        self._clock = clock

    def unary(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Serves a method that returns one message."""
        line = line_of(context, lambda _: context.cancel(), self._clock, self._places)
        with refusing(context):
            line.check()  # it may have waited until its client gave up
            return self._dispatcher.answer(self._method, received(messages, line), line)

    def stream(self, messages: Iterator[bytes], context: grpc.ServicerContext, send: Any = None) -> Any:
        """Serves a method with a stream in or out. Without `send`, which tracing does not pass on, it returns the
        answers."""
        if send is None:
            return self._returned(messages, context)
        sending = threading.Event()

        def end(error: Unavailable) -> None:
            if sending.is_set():
                context.cancel()  # a status would wait behind the message that is not read
            else:
                set_status(context, error)
                send(None)

        line = line_of(context, end, self._clock, self._places)
        try:
            line.check()
            for answer in self._dispatcher.answers(self._method, received(messages, line), line):
                if isinstance(answer, Later):
                    self._answers.send(answer, context, send)
                    return None
                sending.set()
                with line.waiting():
                    send(answer)
                line.moved(len(answer))
                if line.gone:
                    return None
            send(None)
        except PsError as error:
            if line.ended is None:
                abort(context, error)
        return None

    def _returned(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        line = line_of(context, lambda _: context.cancel(), self._clock, self._places)
        with refusing(context):
            line.check()
            for answer in self._dispatcher.answers(self._method, received(messages, line), line):
                data = waited_for(answer, context) if isinstance(answer, Later) else answer
                with line.waiting():
                    yield data
                line.moved(len(data))


def line_of(context: grpc.ServicerContext, end: End, clock: Clock, places: Places | None = None) -> Line:
    """Returns a call's line, which knows when its caller has gone."""
    line = Line(clock.monotonic, end, places)
    if not context.add_callback(line.leave):
        line.leave()
    return line


def received(messages: Iterator[bytes], line: Line) -> Iterator[bytes]:
    """Yields the messages as they come; a client that breaks its stream off is not a failure of the shard."""
    while True:
        try:
            with line.waiting():
                message = next(messages, None)
        except grpc.RpcError as error:
            raise Unavailable("the client broke its stream off") from error
        if message is None:
            return
        line.moved(len(message))
        yield message


def waited_for(answer: Later, context: grpc.ServicerContext) -> bytes:
    """Waits for a later answer on the call's own thread, and returns it."""
    end_with(context, answer)
    try:
        return answer.wait()
    except CancelledError:
        raise Unavailable("the caller has gone: nobody waits for this any more") from None


@contextmanager
def refusing(context: grpc.ServicerContext) -> Iterator[None]:
    """Turns an error of this project inside the block into the call's status."""
    try:
        yield
    except PsError as error:
        abort(context, error)
