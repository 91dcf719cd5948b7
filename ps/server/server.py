"""A gRPC server around a dispatcher: handlers by path, health, reflection, graceful drain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ps.address import address_of
from ps.config import ServiceConfig
from ps.errors import PsError, Unavailable
from ps.server.answers import Answers, abort
from ps.server.dispatch import SHAPES, Dispatcher
from ps.server.later import Later
from ps.v1 import control_pb2, embedding_pb2
from ps.wire.allocator import keep_freed_memory
from ps.wire.channel import options
from ps.wire.methods import Method, Shape

_SERVICES = [
    embedding_pb2.DESCRIPTOR.services_by_name["Embedding"].full_name,
    control_pb2.DESCRIPTOR.services_by_name["Control"].full_name,
]


class GrpcServer:
    """Listens on a port that the kernel chooses, or on the one given."""

    def __init__(self, dispatcher: Dispatcher, config: ServiceConfig, port: int = 0) -> None:
        keep_freed_memory()
        self._config = config
        self._stopped = threading.Event()
        pool = ThreadPoolExecutor(config.grpc_threads, thread_name_prefix="grpc")
        self._server = grpc.server(
            pool,
            options=[*options(config.max_message_bytes), ("grpc.so_reuseport", 0)],
            # The dispatcher's limit counts calls that run; this one also those that gRPC holds until a thread is free.
            maximum_concurrent_rpcs=config.max_requests + config.grpc_threads,
        )
        self._answers = Answers()
        self._server.add_generic_rpc_handlers(_generic_handlers(dispatcher, self._answers))
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        self.address = address_of(config.host, self._bind(config.host, port))
        self._server.start()
        self.set_serving(True)

    def _bind(self, host: str, port: int) -> int:
        try:
            return self._server.add_insecure_port(address_of(host, port))
        except RuntimeError as error:  # all that gRPC says
            where = f"port {port} of host {host!r}" if port else f"host {host!r}"
            raise Unavailable(
                f"cannot listen on {where}: {error}; is the port taken, or the host not an address of this machine?"
            ) from error

    def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 answers."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *_SERVICES):
            self._health.set(name, status)

    def stop(self) -> None:
        """Drain: health says NOT_SERVING, new calls are refused, those in progress get `drain_timeout_s`."""
        self._health.enter_graceful_shutdown()
        self._server.stop(self._config.drain_timeout_s).wait()
        self._answers.close()
        self._stopped.set()

    def wait(self) -> None:
        """Until `stop` is done."""
        self._stopped.wait()


def _generic_handlers(dispatcher: Dispatcher, answers: Answers) -> list[grpc.GenericRpcHandler]:
    services: dict[str, dict[str, Any]] = {}
    for method in dispatcher.handlers:
        services.setdefault(method.service, {})[method.name] = _handler(dispatcher, method, answers)
    return [grpc.method_handlers_generic_handler(service, methods) for service, methods in services.items()]


def _handler(dispatcher: Dispatcher, method: Method, answers: Answers) -> Any:
    dispatch = SHAPES[method.shape]

    def call(request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            _check_wanted(context)
            answer: bytes = dispatch(dispatcher, method, request)
            return answer
        except PsError as error:
            abort(context, error)

    def begin(chunks: Iterator[bytes], context: grpc.ServicerContext) -> bytes | Later:
        try:
            _check_wanted(context)
            return dispatcher.begin_stream_in(method, _received(chunks))
        except PsError as error:
            abort(context, error)

    def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            _check_wanted(context)
            yield from dispatch(dispatcher, method, request)
        except PsError as error:
            abort(context, error)

    if method.shape is Shape.STREAM_OUT:
        return grpc.unary_stream_rpc_method_handler(stream)
    if method.shape is Shape.STREAM_IN:
        return answers.handler(begin)
    return grpc.unary_unary_rpc_method_handler(call)


def _received(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The stream as it comes; a client that breaks it off is not a failure of the shard."""
    try:
        yield from chunks
    except grpc.RpcError as error:
        raise Unavailable("the client broke its stream off") from error


def _check_wanted(context: grpc.ServicerContext) -> None:
    """A call that waited in the thread pool until its client gave up is not worth starting."""
    if not context.is_active():
        raise Unavailable("the client gave up before the call was started")
