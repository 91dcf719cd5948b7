"""The way of a pull on the client, from a forward of the torch side to the transport (docs/architecture.md has it)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import torch

import ps
from ps.client.connection.connection import Connection
from ps.client.connection.transport import InProcessTransport
from ps.cluster import inprocess
from ps.nn import Bags, EmbeddingBagCollection
from ps.wire.methods import PULL, Method

WAY = [
    *("EmbeddingBagCollection.forward", "Pulls.take", "Puller.pull", "Step.pull", "Step._pull"),
    *("Exchange.pull", "Connection.routed", "Exchange._pull", "Tasks.each", "Exchange._part"),
    *("Connection.on_shard", "retry", "Connection.on_shard.<locals>.once", "Exchange._receive", "Pulled.receive"),
    *("Calls.stream_out", "Spy.stream_out"),
]


class Spy(InProcessTransport):
    """Notes who calls it for a pull, from a collection's forward on."""

    way: ClassVar[list[str]] = []

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        """One message in, a stream out."""
        if method is PULL:
            names, frame = [], sys._getframe()
            while frame is not None and frame.f_code.co_name != "_call_impl":
                names.append(frame.f_code.co_qualname)
                frame = frame.f_back  # type: ignore[assignment]
            Spy.way = [name for name in reversed(names) if name.split(".")[0] not in ("closing", "DisableContext")]
        yield from super().stream_out(method, data, timeout_s)


def test_a_pull_passes_no_more_than_this() -> None:
    with ps.Client(Connection(inprocess.start(), Spy)) as client, ThreadPoolExecutor(1) as pool:
        layer = EmbeddingBagCollection(client, [ps.TableConfig(name="t", dim=2)])
        batch = {"t": Bags(torch.tensor([1, 2]), torch.tensor([0, 1]))}
        pool.submit(layer, batch).result()  # the main thread makes no calls itself
    print("\n".join(Spy.way))
    assert Spy.way == WAY
