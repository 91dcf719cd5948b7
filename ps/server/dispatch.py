"""Every call passes here: a limit on calls in progress, counting, and errors that stay typed.

gRPC's own `maximum_concurrent_rpcs` has been seen to be bypassed, so the limit is ours. The gRPC server and the
in-process transport both call through a Dispatcher: what a test sees in process is what a trainer sees remotely.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ps.errors import InternalError, PsError, ResourceExhausted
from ps.server.metrics import RpcMetrics
from ps.wire.methods import Method, Shape
from ps.wire.status import code_of

log = logging.getLogger(__name__)

Handler = Callable[[Any], Any]
"""bytes or Iterator[bytes] -> bytes or Iterator[bytes], by the method's shape."""


class _Call:
    """What one call has moved so far."""

    def __init__(self) -> None:
        self.code = "OK"
        self.received = 0
        self.sent = 0

    def counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.received += len(chunk)
            yield chunk


class Dispatcher:
    """The handlers of a service, guarded and counted."""

    def __init__(self, handlers: dict[Method, Handler], metrics: RpcMetrics, max_requests: int) -> None:
        self.handlers = handlers
        self._metrics = metrics
        self._max_requests = max_requests
        self._active = 0
        self._lock = threading.Lock()

    def unary(self, method: Method, data: bytes) -> bytes:
        """One message in, one out; or a stream in (`Shape.STREAM_IN`), one out."""
        with self._guard(method) as call:
            call.received = len(data)
            answer: bytes = self.handlers[method](data)
            call.sent = len(answer)
            return answer

    def stream_in(self, method: Method, chunks: Iterator[bytes]) -> bytes:
        """A stream in, one message out."""
        with self._guard(method) as call:
            answer: bytes = self.handlers[method](call.counted(chunks))
            call.sent = len(answer)
            return answer

    def stream_out(self, method: Method, data: bytes) -> Iterator[bytes]:
        """One message in, a stream out."""
        with self._guard(method) as call:
            call.received = len(data)
            for chunk in self.handlers[method](data):
                call.sent += len(chunk)
                yield chunk

    @contextmanager
    def _guard(self, method: Method) -> Iterator[_Call]:
        call, started = _Call(), time.perf_counter()
        try:
            self._enter()
            try:
                yield call
            finally:
                self._leave()
        except PsError as error:
            call.code = code_of(error).name
            raise
        except MemoryError as error:
            call.code = "RESOURCE_EXHAUSTED"
            raise ResourceExhausted(f"the shard has no memory left for this {method.name}: {error}") from error
        except GeneratorExit:
            call.code = "CANCELLED"
            raise
        except Exception as error:
            call.code = "INTERNAL"
            log.exception("%s failed", method.name)
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
        self._metrics.received.labels(method.name).inc(call.received)
        self._metrics.sent.labels(method.name).inc(call.sent)


SHAPES: dict[Shape, Callable[..., Any]] = {
    Shape.UNARY: Dispatcher.unary,
    Shape.STREAM_IN: Dispatcher.stream_in,
    Shape.STREAM_OUT: Dispatcher.stream_out,
}
"""How each shape of call is dispatched."""
