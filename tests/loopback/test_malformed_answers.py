"""A shard, or what stands between, that answers with other bytes: the client says so by an error of its tree."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest

import ps
from ps.client.connection.connection import Connection
from ps.client.connection.transport import Begun, InProcessTransport, Transport
from ps.cluster import inprocess
from ps.errors import PsError
from ps.v1 import control_pb2 as control
from ps.wire import methods
from ps.wire.methods import Method
from tests.loopback.tables import block, summing


class Saying(Transport):
    """To whoever asks for its figures always the same."""

    def __init__(self, address: str, answer: bytes) -> None:
        self._inner, self._answer = InProcessTransport(address), answer

    def unary(self, method: Method, request: bytes, timeout_s: float) -> bytes:
        return self._answer if method == methods.STATS else self._inner.unary(method, request, timeout_s)

    def stream_in(
        self, method: Method, requests: Iterable[bytes], timeout_s: float, begun: Begun | None = None
    ) -> bytes:
        return self._inner.stream_in(method, requests, timeout_s, begun)

    def stream_out(self, method: Method, request: bytes, timeout_s: float) -> Iterator[bytes]:
        return self._inner.stream_out(method, request, timeout_s)

    def close(self) -> None:
        self._inner.close()


class Garbling(Transport):
    """The answers of a shard, now and then changed, cut, doubled or lost."""

    def __init__(self, address: str, rng: random.Random, rate: float) -> None:
        self._inner, self._rng = InProcessTransport(address), rng
        self.rate = rate

    def unary(self, method: Method, request: bytes, timeout_s: float) -> bytes:
        return self._garbled(self._inner.unary(method, request, timeout_s))

    def stream_in(
        self, method: Method, requests: Iterable[bytes], timeout_s: float, begun: Begun | None = None
    ) -> bytes:
        return self._garbled(self._inner.stream_in(method, requests, timeout_s, begun))

    def stream_out(self, method: Method, request: bytes, timeout_s: float) -> Iterator[bytes]:
        for chunk in self._inner.stream_out(method, request, timeout_s):
            if self._rng.random() >= self.rate / 4:
                yield self._garbled(chunk)
            if self._rng.random() < self.rate / 4:
                yield chunk

    def close(self) -> None:
        self._inner.close()

    def _garbled(self, answer: bytes) -> bytes:
        rng, data = self._rng, bytearray(answer)
        if rng.random() >= self.rate:
            return answer
        for _ in range(rng.randint(1, 4)):
            where = rng.randint(0, len(data))
            data[where : where + rng.randint(0, 6)] = rng.randbytes(rng.randint(0, 6))
        return bytes(data)


@pytest.fixture(scope="module")
def address() -> str:
    return inprocess.start(ps.ServiceConfig(watching={"metrics": False}))


def use(client: ps.Client) -> list[Callable[[], object]]:
    """Whatever a client does."""
    ids_N = np.arange(50)

    def step() -> None:
        step = client.prepare({"t": ids_N})
        step.pull()
        step.push({"t": block(ids_N)})

    return [
        lambda: client.create_table(summing(), exist_ok=True),
        lambda: client.push("t", ids_N, block(ids_N)),
        lambda: client.pull("t", ids_N),
        step,
        lambda: client.upsert("t", ids_N, block(ids_N)),
        lambda: client.remove("t", ids_N[:5]),
        lambda: list(client.export("t")),
        lambda: client.size("t"),
        client.memory_usage,
        client.stats,
        client.tables,
    ]


@pytest.mark.parametrize("seed", range(8))
def test_any_answer_is_a_result_or_an_error_of_the_tree(address: str, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(8):
        transports: list[Garbling] = []

        def garbling(to: str, made: list[Garbling] = transports) -> Transport:
            made.append(Garbling(to, rng, 0.0))
            return made[-1]

        with ps.Client(Connection(address, garbling), timeout_s=0.2) as client:
            client.create_table(summing(), exist_ok=True)
            for transport in transports:
                transport.rate = 0.5
            for one in rng.choices(use(client), k=12):
                with contextlib.suppress(PsError):
                    one()


@pytest.mark.parametrize("report", ["{", "", "[1]", "1"])
def test_a_report_that_is_none_is_said_to_be(address: str, report: str) -> None:
    answer = control.StatsResponse(stats_json=report).SerializeToString()
    with ps.Client(Connection(address, lambda to: Saying(to, answer))) as client:
        for ask in (client.stats, client.memory_usage):
            with pytest.raises(ps.InternalError, match="report of itself"):
                ask()
