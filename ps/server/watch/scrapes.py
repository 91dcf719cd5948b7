"""The port that Prometheus scrapes: HTTP by the standard library, the page by prometheus_client, and a bound on
everything.

A connection has a thread until it is answered, once. If there are too many, the oldest that has not sent its request is
ended; none lasts longer than LONGEST_S. If the process has no descriptor left, a reserved one is used.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

from ps.address import address_of
from ps.runtime.clock import Clock

MOST_CONNECTIONS = 8
SILENT_S = 5.0
"""Seconds without a byte in either direction after which a connection is ended."""
LONGEST_S = 15.0
YOUNG_S = 1.0
"""A connection that has sent its request and is younger than this is being answered, and is not ended for another."""
PAUSE_S = 0.1
"""The pause before the next try where no descriptor is left at all."""

log = logging.getLogger(__name__)


class MetricsServer:
    """Serves a registry by HTTP, with the figures of this process."""

    def __init__(self, registry: CollectorRegistry, host: str, clock: Clock) -> None:
        ProcessCollector(registry=registry)
        self._server = _Server(host, clock)
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.address = address_of(host, self._server.server_port)

    def close(self) -> None:
        """Stops listening, and ends connections."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(eq=False)
class _Connection:
    socket: socket.socket
    since: float
    asked: bool = False

    def end(self) -> None:
        """Ends the connection: code that reads from it or writes to it stops at once."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = SILENT_S

    def get_environ(self) -> Any:
        """Notes that the request has been read."""
        self.server.asked(self.connection)  # type: ignore[attr-defined]  # by its own server
        return super().get_environ()

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: a scrape every few seconds is not worth a line."""


class _Server(WSGIServer):
    request_queue_size = 64

    def __init__(self, host: str, clock: Clock) -> None:
        self._clock = clock
        ((self.address_family, *_), *_) = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self._connections: dict[socket.socket, _Connection] = {}
        self._changing = threading.Lock()
        self._pool = ThreadPoolExecutor(MOST_CONNECTIONS, thread_name_prefix="scrape")
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        super().__init__((host, 0), _Handler)

    def get_request(self) -> Any:
        """Accepts a connection; with the reserved descriptor, where there is no other."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._let_go_of_spare()
            try:
                return super().get_request()
            except OSError:
                self._clock.sleep(PAUSE_S)  # the connection is still there: this would loop at full speed
                raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hands the connection to a thread of the pool."""
        with self._changing:
            if len(self._connections) >= MOST_CONNECTIONS:
                self._make_room()
            self._connections[request] = _Connection(request, self._clock.monotonic())
        self._pool.submit(self._answer, request, client_address)

    def asked(self, request: socket.socket) -> None:
        """Notes that the connection's request has come and is being answered."""
        with self._changing:
            if request in self._connections:  # else it had to give way meanwhile
                self._connections[request].asked = True

    def service_actions(self) -> None:
        """Ends, twice a second, connections that have lasted too long."""
        with self._changing:
            for connection in self._connections.values():
                if self._clock.monotonic() - connection.since > LONGEST_S:
                    connection.end()

    def server_close(self) -> None:
        """Ends connections and threads."""
        super().server_close()
        with self._changing:
            for connection in self._connections.values():
                connection.end()
        self._pool.shutdown()
        self._let_go_of_spare()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a scrape that broke off, which is an error of its client."""
        log.debug("a scrape of %s broke off", client_address, exc_info=True)

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # noqa: BLE001  of one connection: the others go on
            self.handle_error(request, client_address)
        finally:
            with self._changing:
                self._connections.pop(request, None)
            self.shutdown_request(request)
            self._keep_spare()

    def _make_room(self) -> None:
        waiting = [one for one in self._connections.values() if not one.asked]
        old = [one for one in self._connections.values() if self._clock.monotonic() - one.since > YOUNG_S]
        oldest = next(iter([*waiting, *old]), None)
        if oldest is not None:
            del self._connections[oldest.socket]
            oldest.end()

    def _keep_spare(self) -> None:
        with self._changing, suppress(OSError):
            if self._spare is None:
                self._spare = os.open(os.devnull, os.O_RDONLY)

    def _let_go_of_spare(self) -> None:
        with self._changing:
            if self._spare is not None:
                os.close(self._spare)
                self._spare = None
