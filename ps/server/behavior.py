"""Behaviors of gRPC methods: a dispatcher's calls, each with a line to its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc

from ps.errors import PsError, Unavailable
from ps.server.dispatch import Dispatcher
from ps.server.lines import End, Line, Places
from ps.wire.methods import Method
from ps.wire.status import code_of, details_of, to_metadata


def on(pool: ThreadPoolExecutor, behavior: Callable[..., Any], non_blocking: bool = False) -> Callable[..., Any]:
    """The behavior of a method, run by these threads. Not blocking: it is given a function to send answers with."""

    def run(*arguments: Any) -> Any:  # a method of an object takes no marks
        return behavior(*arguments)

    run.experimental_thread_pool = pool  # type: ignore[attr-defined]  # gRPC's way of saying it
    run.experimental_non_blocking = non_blocking  # type: ignore[attr-defined]
    return run


class Served:
    """One method's behavior."""

    def __init__(self, dispatcher: Dispatcher, method: Method, places: Places | None) -> None:
        self._dispatcher = dispatcher
        self._method = method
        self._places = places

    def unary(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """One message out."""
        line = line_of(context, lambda _: context.cancel(), self._places)
        with refusing(context):
            line.check()  # it may have waited until its client gave up
            return self._dispatcher.answer(self._method, received(messages, line), line)

    def stream(self, messages: Iterator[bytes], context: grpc.ServicerContext, send: Any = None) -> Any:
        """A stream in, or out. Without `send`, which tracing does not pass on, the answers are returned."""
        if send is None:
            return self._returned(messages, context)
        sending = threading.Event()

        def end(error: Unavailable) -> None:
            if sending.is_set():
                context.cancel()  # a status would wait behind the message that is not read
            else:
                _set_status(context, error)
                send(None)

        line = line_of(context, end, self._places)
        try:
            line.check()
            for answer in self._dispatcher.answers(self._method, received(messages, line), line):
                sending.set()
                with line.waiting():
                    send(answer)
                line.moved(len(answer))
                if line.gone:
                    return None
            send(None)
        except PsError as error:
            if line.ended is None:
                _abort(context, error)
        return None

    def _returned(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        line = line_of(context, lambda _: context.cancel(), self._places)
        with refusing(context):
            line.check()
            for answer in self._dispatcher.answers(self._method, received(messages, line), line):
                with line.waiting():
                    yield answer
                line.moved(len(answer))


def line_of(context: grpc.ServicerContext, end: End, places: Places | None = None) -> Line:
    """A call's line, which knows when its caller has gone."""
    line = Line(end, places)
    if not context.add_callback(line.leave):
        line.leave()
    return line


def received(messages: Iterator[bytes], line: Line) -> Iterator[bytes]:
    """The messages as they come; a client that breaks its stream off is not a failure of the shard."""
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


@contextmanager
def refusing(context: grpc.ServicerContext) -> Iterator[None]:
    """An error of ours inside is the call's status."""
    try:
        yield
    except PsError as error:
        _abort(context, error)


def _set_status(context: grpc.ServicerContext, error: PsError) -> None:
    context.set_trailing_metadata(to_metadata(error))
    context.set_code(code_of(error))
    context.set_details(details_of(error))


def _abort(context: grpc.ServicerContext, error: PsError) -> NoReturn:
    context.set_trailing_metadata(to_metadata(error))
    context.abort(code_of(error), details_of(error))
