"""Every call passes here: a limit on calls in progress, counting, and errors that stay typed.

gRPC's own `maximum_concurrent_rpcs` has been seen to be bypassed, so the limit is ours. The gRPC server and the
in-process transport both call through a Dispatcher: what a test sees in process is what a trainer sees remotely.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from ps.errors import InternalError, PsError, ResourceExhausted
from ps.server import logs
from ps.server.metrics import RpcMetrics
from ps.wire.kinds import Call
from ps.wire.methods import EMBEDDING, Method, Shape
from ps.wire.status import code_of, details_of

log = logging.getLogger(__name__)

Handler = Callable[..., Any]
"""bytes or Iterator[bytes] -> bytes or Iterator[bytes], by the method's shape. Those of the data plane, that is of the
service Embedding, are given the `Call` too, and tell it what was said."""


class _Call(Call):
    """What one call has moved so far."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.fields = logs.begin_call(method.name)
        self.code = "OK"

    def counted(self, method: Method, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.received.chunk(method, chunk)
            yield chunk


class Dispatcher:
    """The handlers of a service, guarded and counted."""

    def __init__(self, handlers: dict[Method, Handler], metrics: RpcMetrics, max_requests: int) -> None:
        self.handlers = handlers
        self._metrics = metrics
        metrics.expect(method.name for method in handlers)
        self._max_requests = max_requests
        self._active = 0
        self._lock = threading.Lock()

    def unary(self, method: Method, data: bytes) -> bytes:
        """One message in, one out; or a stream in (`Shape.STREAM_IN`), one out."""
        with self._guard(method) as call:
            call.received.message(data)
            answer: bytes = self._handle(method, data, call)
            call.sent.message(answer)
            return answer

    def stream_in(self, method: Method, chunks: Iterator[bytes]) -> bytes:
        """A stream in, one message out."""
        with self._guard(method) as call:
            answer: bytes = self._handle(method, call.counted(method, chunks), call)
            call.sent.message(answer)
            return answer

    def stream_out(self, method: Method, data: bytes) -> Iterator[bytes]:
        """One message in, a stream out."""
        with self._guard(method) as call:
            call.received.message(data)
            with closing(self._handle(method, data, call)) as chunks:
                for chunk in chunks:
                    call.sent.chunk(method, chunk)
                    yield chunk

    def _handle(self, method: Method, data: bytes | Iterator[bytes], call: Call) -> Any:
        handler = self.handlers[method]
        return handler(data, call) if method.service == EMBEDDING else handler(data)

    @contextmanager
    def _guard(self, method: Method) -> Iterator[_Call]:
        call, started = _Call(method), time.perf_counter()
        try:
            self._enter()
            try:
                yield call
            finally:
                self._leave()
        except PsError as error:
            call.code = code_of(error).name
            _log_refusal(error, call, time.perf_counter() - started)
            raise
        except MemoryError as error:
            call.code = "RESOURCE_EXHAUSTED"
            raise ResourceExhausted(f"the shard has no memory left for this {method.name}: {error}") from error
        except GeneratorExit:
            call.code = "CANCELLED"
            raise
        except Exception as error:
            call.code = "INTERNAL"
            log.exception("%s failed", method.name, extra={"fields": call.fields})
            raise InternalError(f"{method.name} failed in the shard: {type(error).__name__}: {error}") from error
        finally:
            self._count(method, call, time.perf_counter() - started)

    def _enter(self) -> None:
        with self._lock:
            if self._active >= self._max_requests:
                raise ResourceExhausted(
                    f"{self._max_requests} calls are in progress already (max_requests)", retry_after_s=0.1
                )
            self._active += 1
        self._metrics.active.set(self._active)

    def _leave(self) -> None:
        with self._lock:
            self._active -= 1
        self._metrics.active.set(self._active)

    def _count(self, method: Method, call: _Call, seconds: float) -> None:
        self._metrics.calls.labels(method.name, call.code).inc()
        self._metrics.seconds.labels(method.name, call.code).observe(seconds)
        for counter, moved in ((self._metrics.received, call.received), (self._metrics.sent, call.sent)):
            for kind, n in moved.by_kind().items():
                if n > 0:
                    counter.labels(method.name, kind).inc(n)


def _log_refusal(error: PsError, call: _Call, seconds: float) -> None:
    """The caller is told too; whoever must come again is not worth a line in everybody's log."""
    come_again = isinstance(error, ResourceExhausted) and error.retry_after_s is not None
    fields = {**call.fields, "code": call.code, "seconds": round(seconds, 6)}
    level, said = logging.DEBUG if come_again else logging.INFO, details_of(error)
    log.log(level, "%s: %s", type(error).__name__, said, extra={"fields": fields})


SHAPES: dict[Shape, Callable[..., Any]] = {
    Shape.UNARY: Dispatcher.unary,
    Shape.STREAM_IN: Dispatcher.stream_in,
    Shape.STREAM_OUT: Dispatcher.stream_out,
}
"""How each shape of call is dispatched."""
