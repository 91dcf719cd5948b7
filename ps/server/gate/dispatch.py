"""Every call passes here: a limit on calls in progress, counting, and errors that stay typed.

gRPC's own `maximum_concurrent_rpcs` has been seen to be bypassed, so the limit is ours, and a call counts as soon as it
is accepted: gRPC gives each a thread. The gRPC server and the in-process transport both call through a Dispatcher: what
a test sees in process is what a trainer sees remotely.
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
"""bytes or Iterator[bytes] -> bytes or Iterator[bytes], by the method's shape. Those of the data plane, that is of the
service Embedding, are given the `ServedCall` too, and tell it what was said."""

CONTROL_CALLS = 64
"""How many calls of what everybody asks now and then may be in progress at once. They have threads of their own."""
CONTROLS = frozenset({methods.DESCRIBE, methods.STATS, methods.ADVANCE})
"""The methods that are answered whatever else goes on."""


class ServedCall(Call):
    """What one call has moved so far, and whoever waits for it."""

    def __init__(self, method: Method, caller: Caller) -> None:
        super().__init__()
        self.caller = caller
        self.fields = logs.begin_call(method.name)
        self.code = "OK"

    def counted(self, method: Method, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yields the chunks as they come."""
        for chunk in chunks:
            self.received.chunk(method, chunk)
            yield chunk


class Dispatcher:
    """The handlers of a service, guarded and counted."""

    def __init__(self, handlers: dict[Method, Handler], metrics: RpcMetrics, max_requests: int) -> None:
        self.handlers = handlers
        self._metrics = metrics
        metrics.expect(method.name for method in handlers)
        self.calls, self.controls = Lane(max_requests, "limits.max_requests"), Lane(CONTROL_CALLS, "CONTROL_CALLS")

    def unary(self, method: Method, data: bytes) -> bytes:
        """One message in, one out, in this process."""
        return self.answer(method, iter((data,)), Line(SYSTEM_CLOCK.monotonic))

    def stream_in(
        self, method: Method, chunks: Iterator[bytes], begun: Callable[[Callable[[], object]], None] | None = None
    ) -> bytes:
        """A stream in, one message out, in this process, waited for on the caller's thread. `begun` is told how to end
        that; then CancelledError is raised."""
        return self.answer(method, chunks, Line(SYSTEM_CLOCK.monotonic), begun)

    def stream_out(self, method: Method, data: bytes) -> Iterator[bytes]:
        """One message in, a stream out, in this process."""
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
        """One message for those of the caller at the other end of the line: of a method that does not stream out. Where
        it comes later, it is waited for."""
        with ExitStack() as held:
            answer = self._begin(held, method, messages, line)
        if not isinstance(answer, Later):
            return answer
        if begun is not None:
            begun(answer.give_up)
        return answer.wait()

    def answers(self, method: Method, messages: Iterator[bytes], line: Line) -> Iterator[bytes | Later]:
        """Yields what is sent, of any method. The call ends when all of it has been taken."""
        with ExitStack() as held:
            if method.shape is not Shape.STREAM_OUT:
                yield self._begin(held, method, messages, line)
                return
            call = held.enter_context(self._guard(method, line))
            for chunk in held.enter_context(closing(self._handle(method, _only(messages, call), call))):
                call.sent.chunk(method, chunk)
                yield chunk

    def _begin(self, held: ExitStack, method: Method, messages: Iterator[bytes], line: Line) -> bytes | Later:
        """Returns the answer; the call is in progress within `held`, which one that comes later takes along."""
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
    """The caller is told too; whoever must retry is not worth a line in everybody's log."""
    fields = {**call.fields, "code": call.code, "seconds": round(seconds, 6)}
    level = logging.DEBUG if _may_come_again(error) else logging.INFO
    log.log(level, "%s: %s", type(error).__name__, details_of(error), extra={"fields": fields})
