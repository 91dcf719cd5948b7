"""What requests are made of, drawn at random in sizes of every order of magnitude."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import Message

import ps
from ps.v1 import embedding_pb2 as pb
from ps.wire.bags import encode_bags
from ps.wire.encodings import ENCODINGS, Layout, encode
from ps.wire.sorted_ids import encode_sorted_ids
from tests.loopback.tables import DIM, summing

MAX_BYTES = 1 << 20
FEW = 4
"""Of the messages in a field, those that may be changed."""
TABLES = {
    "t": summing("t"),
    "u": summing("u").model_copy(update={"cold": ps.Fp16(), "importance": ps.Importance(external=1.0)}),
    "v": summing("v").model_copy(update={"admission": ps.CountThreshold(min_count=2, cells=1 << 12)}),
    "w": ps.TableConfig(name="w", dim=DIM, cold=ps.TensorTrain(rows=10**6, ranks=8, index="hash", hot_rows=1000)),
}
"""That there are: one of each kind."""
EDGES = (0, 1, 2, 3, 255, 256, 4095, 4096, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63, 2**64 - 1)


class Parts:
    """Draws what requests are made of, for a service with these TABLES."""

    def __init__(self, header: pb.Header, seed: int) -> None:
        self._header = header
        self.random = random.Random(seed)
        self._sequence = 0

    def size(self, most: int = MAX_BYTES) -> int:
        """Of any order of magnitude; one in eight is as large as may be, or nearly."""
        if self.random.random() < 0.125:
            return self.random.randint(most // 2, most)
        return int(most ** self.random.random())

    def header(self) -> pb.Header:
        return pb.Header(routing_epoch=self._header.routing_epoch, worker_id=self.random.randint(1, 50))

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def ids(self, most: int = 100_000) -> np.ndarray:
        """Ascending."""
        n = self.size(most)
        first = self.random.choice([0, 0, -(2**63), 2**62, 1000])
        gaps_N = np.random.default_rng(self.random.getrandbits(32)).integers(1, self.random.choice([2, 20, 2**30]), n)
        return first + np.cumsum(gaps_N, dtype=np.int64)

    def table_ids(self, most: int = 100_000, bags: bool = False) -> tuple[pb.TableIds, int, int]:
        """With how many ids and bags they are."""
        ids_N = self.ids(most)
        part = pb.TableIds(table=self.random.choice(list(TABLES)))
        if self.random.random() < 0.5:
            part.ids = ids_N.tobytes()
        else:
            part.sorted_ids = encode_sorted_ids(ids_N)
        if self.random.random() < 0.2:
            part.counts = self.random.randbytes(len(ids_N))
        if not bags or self.random.random() < 0.6:
            return part, len(ids_N), 0
        lengths_R = np.full(self.size(50_000), self.random.choice([1, 2, 9]))
        part.bags = encode_bags(lengths_R, np.arange(lengths_R.sum()) % len(ids_N), len(ids_N))
        return part, len(ids_N), len(lengths_R)

    def body(self, n: int) -> tuple[list[pb.Block], bytes]:
        """n rows, in any encoding."""
        encoding = self.random.choice(list(ENCODINGS))
        layout, _ = ENCODINGS[encoding]
        rows_R = None if layout is Layout.DENSE else np.flatnonzero(np.arange(n) % 3 == 0)
        values_ND = np.ones((n if rows_R is None else len(rows_R), DIM), np.float32)
        values_ND[:, ::2] *= self.random.choice([0, 1, -2])
        data = bytes(encode(ps.Selected(rows_R, values_ND, elements=True), encoding, n))
        return [pb.Block(encoding=encoding, bytes=len(data))], data

    def chunks(self, kind: Callable[..., Message], body: bytes) -> list[Message | bytes]:
        """A body in pieces of any size, of whole rows."""
        size = max(self.size(), 4 * DIM, len(body) // 5000) // (4 * DIM) * 4 * DIM
        return [kind(payload=body[start : start + size]) for start in range(0, len(body), size)]

    def fields(self, messages: list[Any]) -> tuple[Message, list[Any]]:
        """One of the messages within, at any level, and all its fields."""
        found: list[Message] = []

        def walk(message: Message) -> None:
            found.append(message)
            for field, value in message.ListFields():
                if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                    for inner in value[:FEW] if field.is_repeated else [value]:
                        walk(inner)

        for message in messages:
            if isinstance(message, Message):
                walk(message)
        chosen = self.random.choice(found or [pb.Header()])
        return chosen, list(chosen.DESCRIPTOR.fields)
