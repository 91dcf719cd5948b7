"""`python -m ps.server.probe HOST:PORT`: ends with 0 if the server there is SERVING by grpc.health.v1, else with 1.

For the health probe of a container. Without a host, the address that this host has by its own name.
"""

from __future__ import annotations

import socket
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 3.0


def probe(address: str) -> str:
    """Returns what the server answers: SERVING or another name of a state, or a gRPC status code of the call."""
    target = f"{_own_host()}{address}" if address.startswith(":") else address
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def _own_host() -> str:
    found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    host = str(found[0][4][0])
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = probe(sys.argv[1])
    print(found)
    sys.exit(found != "SERVING")
