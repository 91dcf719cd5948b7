"""The standard services, health and reflection, on threads of their own, so that they answer whatever clients do with
the other calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ps.errors import InvalidArgument, Unavailable
from ps.runtime.clock import Clock
from ps.server.gate.behavior import line_of, on, received, refusing
from ps.server.gate.lanes import Lane
from ps.server.gate.lines import Line
from ps.wire import codec

MOST_CALLS = 64
"""How many of these calls may be in progress, watches of health too. One more is refused, and the call that has been
silent for longest is ended to make room."""


class Aside:
    """The health and reflection services of one server."""

    def __init__(self, services: Sequence[str], clock: Clock) -> None:
        """services: the server's own services, by name."""
        self._clock = clock
        self.lane = Lane(MOST_CALLS, "health and reflection")
        self._pool = ThreadPoolExecutor(2 * MOST_CALLS, thread_name_prefix="grpc-aside")
        self._services = services
        self._health = health.HealthServicer()
        self._reflection = reflection.ReflectionServicer([*services, health.SERVICE_NAME, reflection.SERVICE_NAME])

    @property
    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns the handlers for a gRPC server."""
        check: Any = grpc.stream_unary_rpc_method_handler(
            on(self._pool, self._check), response_serializer=health_pb2.HealthCheckResponse.SerializeToString
        )
        watch: Any = grpc.stream_stream_rpc_method_handler(
            on(self._pool, self._watch, non_blocking=True),
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
        info: Any = grpc.stream_stream_rpc_method_handler(
            on(self._pool, self._info),
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return [
            grpc.method_handlers_generic_handler(health.SERVICE_NAME, {"Check": check, "Watch": watch}),
            grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": info}),
        ]

    def set_serving(self, serving: bool) -> None:
        """Sets whether health says SERVING."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._services):
            self._health.set(name, status)

    def drain(self) -> None:
        """Lets health say NOT_SERVING from now on."""
        self._health.enter_graceful_shutdown()

    def end(self) -> None:
        """Ends idle threads."""
        self._pool.shutdown(wait=False)

    def _check(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        with self._held(context) as line:
            return self._health.Check(_first(requests, line), context)

    def _watch(self, requests: Iterator[bytes], context: grpc.ServicerContext, send: Any = None) -> Any:
        """Begins a watch and frees the thread at once; the watch counts as a call until its caller goes."""
        line = line_of(context, lambda _: context.cancel(), self._clock)
        with refusing(context):
            self.lane.enter(line)
            line.on_leave(lambda: self.lane.leave(line))
            request = _first(requests, line)

        def told(status: Any) -> None:
            with suppress(Unavailable), line.waiting():
                send(status)

        return self._health.Watch(request, context, None if send is None else told)

    def _info(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        with self._held(context) as line:
            asked = map(reflection_pb2.ServerReflectionRequest.FromString, received(requests, line))
            for answer in self._reflection.ServerReflectionInfo(asked, context):
                with line.waiting():
                    yield answer

    @contextmanager
    def _held(self, context: grpc.ServicerContext) -> Iterator[Line]:
        line = line_of(context, lambda _: context.cancel(), self._clock)
        with refusing(context), self.lane.holding(line):
            yield line


def _first(requests: Iterator[bytes], line: Line) -> Any:
    for data in received(requests, line):
        return codec.parse(health_pb2.HealthCheckRequest, data)
    raise InvalidArgument("the call ended before its message")
