"""Dispatches every call: limits the calls in progress, counts them, and keeps errors typed.

gRPC's own `maximum_concurrent_rpcs` has been seen to be bypassed, so the limit is enforced here. A call counts as soon
as it is accepted, because gRPC gives each a thread. The gRPC server and the in-process transport both call through a
Dispatcher: a test in process gets the same answers as a remote trainer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from ps.errors import InternalError, InvalidArgument, PsError, ResourceExhausted
from ps.runtime.clock import SYSTEM_CLOCK
from ps.server.gate.lanes import Lane
from ps.server.gate.lines import Line
from ps.server.later import Later
from ps.server.watch import logs
from ps.server.watch.metrics import RpcMetrics
from ps.shard.caller import Caller
from ps.wire import methods
from ps.wire.kinds import Call
from ps.wire.methods import EMBEDDING, Method, Shape
from ps.wire.status import code_of, details_of

log = logging.getLogger(__name__)

Handler = Callable[..., Any]
"""bytes or Iterator[bytes] -> bytes or Iterator[bytes], by the method's shape. Handlers of the data plane, that is of
the service Embedding, also get the `ServedCall`, and count in it the kinds of bytes in messages."""

CONTROL_CALLS = 64
"""How many calls of CONTROLS may be in progress at once. They have threads of their own."""
CONTROLS = frozenset(
    {
        *(methods.DESCRIBE, methods.STATS, methods.ADVANCE),
        *(methods.CHECKPOINT, methods.RESTORE, methods.CHECKPOINT_PART, methods.KEEP_PART, methods.RESTORE_PART),
    }
)
"""The methods that are answered however busy the others are, and those that last so long that they may take no place of
others."""


class ServedCall(Call):
    """What one call has moved so far, and its line to the caller."""

    def __init__(self, method: Method, caller: Caller) -> None:
        super().__init__()
        self.caller = caller
        self.fields = logs.begin_call(method.name)
        self.code = "OK"

    def counted(self, method: Method, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yields the chunks and counts them."""
        for chunk in chunks:
            self.received.chunk(method, chunk)
            yield chunk


class Dispatcher:
    """The handlers of a service, with limits and counts."""

    def __init__(self, handlers: dict[Method, Handler], metrics: RpcMetrics, max_requests: int) -> None:
        self.handlers = handlers
        self._metrics = metrics
        metrics.expect(method.name for method in handlers)
        self.calls, self.controls = Lane(max_requests, "limits.max_requests"), Lane(CONTROL_CALLS, "CONTROL_CALLS")

    def unary(self, method: Method, data: bytes) -> bytes:
        """Answers one message with one, in this process."""
        return self.answer(method, iter((data,)), Line(SYSTEM_CLOCK.monotonic))

    def stream_in(
        self, method: Method, chunks: Iterator[bytes], begun: Callable[[Callable[[], object]], None] | None = None
    ) -> bytes:
        """Answers a stream with one message, in this process; the caller's thread waits. `begun` is told how to end the
        wait, which then raises CancelledError."""
        return self.answer(method, chunks, Line(SYSTEM_CLOCK.monotonic), begun)

    def stream_out(self, method: Method, data: bytes) -> Iterator[bytes]:
        """Answers one message with a stream, in this process."""
        for answer in self.answers(method, iter((data,)), Line(SYSTEM_CLOCK.monotonic)):
            assert not isinstance(answer, Later)
            yield answer

    def answer(
        self,
        method: Method,
        messages: Iterator[bytes],
        line: Line,
        begun: Callable[[Callable[[], object]], None] | None = None,
    ) -> bytes:
        """Returns one message for the messages of the caller at the other end of the line, of a method that does not
        stream out. If the answer comes later, it waits for it."""
        with ExitStack() as held:
            answer = self._begin(held, method, messages, line)
        if not isinstance(answer, Later):
            return answer
        if begun is not None:
            begun(answer.give_up)
        return answer.wait()

    def answers(self, method: Method, messages: Iterator[bytes], line: Line) -> Iterator[bytes | Later]:
        """Yields the answers of any method. The call ends when all of them have been taken."""
        with ExitStack() as held:
            if method.shape is not Shape.STREAM_OUT:
                yield self._begin(held, method, messages, line)
                return
            call = held.enter_context(self._guard(method, line))
            for chunk in held.enter_context(closing(self._handle(method, _only(messages, call), call))):
                call.sent.chunk(method, chunk)
                yield chunk

    def _begin(self, held: ExitStack, method: Method, messages: Iterator[bytes], line: Line) -> bytes | Later:
        """Returns the answer. The call counts as in progress within `held`; an answer that comes later takes `held`
        along."""
        call = held.enter_context(self._guard(method, line))
        said = call.counted(method, messages) if method.shape is Shape.STREAM_IN else _only(messages, call)
        answer: bytes | Later = self._handle(method, said, call)
        if isinstance(answer, Later):
            line.finish()  # it does not work any more; the call goes on
            answer.within(held.pop_all(), call.sent.message)
        else:
            call.sent.message(answer)
        return answer

    def _handle(self, method: Method, data: bytes | Iterator[bytes], call: ServedCall) -> Any:
        handler = self.handlers[method]
        return handler(data, call) if method.service == EMBEDDING else handler(data)

    @contextmanager
    def _guard(self, method: Method, line: Line) -> Iterator[ServedCall]:
        call, started = ServedCall(method, line), SYSTEM_CLOCK.monotonic()
        lane = self.controls if method in CONTROLS else self.calls
        try:
            lane.enter(line)
            self._metrics.active.set(len(self.calls))
            try:
                yield call
            finally:
                lane.leave(line)
        except PsError as error:
            call.code = code_of(error).name
            _log_refusal(error, call, SYSTEM_CLOCK.monotonic() - started)
            raise
        except MemoryError as error:
            call.code = "RESOURCE_EXHAUSTED"
            raise ResourceExhausted(f"the shard has no memory left for this {method.name}: {error}") from error
        except (GeneratorExit, CancelledError):
            call.code = "CANCELLED"
            raise
        except KeyboardInterrupt:  # in process: of the trainer's own thread
            call.code = "CANCELLED"
            raise
        except Exception as error:
            call.code = "INTERNAL"
            log.exception("%s failed", method.name, extra={"fields": call.fields})
            raise InternalError(f"{method.name} failed in the shard: {type(error).__name__}: {error}") from error
        finally:
            self._metrics.active.set(len(self.calls))
            self._count(method, call, SYSTEM_CLOCK.monotonic() - started)

    def _count(self, method: Method, call: ServedCall, seconds: float) -> None:
        self._metrics.calls.labels(method.name, call.code).inc()
        self._metrics.seconds.labels(method.name, call.code).observe(seconds)
        for counter, moved in ((self._metrics.received, call.received), (self._metrics.sent, call.sent)):
            for kind, n in moved.by_kind().items():
                if n > 0:
                    counter.labels(method.name, kind).inc(n)


def _only(messages: Iterator[bytes], call: Call) -> bytes:
    data = next(messages, None)
    if data is None:
        raise InvalidArgument("the call ended before its message")
    call.received.message(data)
    return data


def _may_come_again(error: PsError) -> bool:
    return isinstance(error, ResourceExhausted) and error.retry_after_s is not None


def _log_refusal(error: PsError, call: ServedCall, seconds: float) -> None:
    """Logs an error that the caller gets. An error that only asks the client to retry is not logged."""
    fields = {**call.fields, "code": call.code, "seconds": round(seconds, 6)}
    level = logging.DEBUG if _may_come_again(error) else logging.INFO
    log.log(level, "%s: %s", type(error).__name__, details_of(error), extra={"fields": fields})
