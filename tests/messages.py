"""Messages as a broken or a hostile client could send them: good ones, changed where it may hurt.

A message is drawn by a seed: a request of some method as a client makes it, then some changes to its fields (more of
them, other counts and lengths, long names, unknown ones), then some to its bytes. Sizes go up to MAX_BYTES.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import Message

import ps
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.bags import encode_bags
from ps.wire.encodings import ENCODINGS, Layout, encode
from ps.wire.methods import Method, Shape
from ps.wire.sorted_ids import encode_sorted_ids
from tests.loopback.tables import DIM, summing
from tests.unit.kernels.strategies import ids_of_hash

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
METHODS = methods.METHODS


@dataclass(frozen=True)
class Sent:
    """One call: the messages of its stream, or the only one."""

    method: Method
    messages: list[bytes]
    what: str
    """How it was made."""

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.messages))


class Maker:
    """Draws messages for a service with these TABLES."""

    def __init__(self, header: pb.Header, seed: int) -> None:
        self._header = header
        self._random = random.Random(seed)
        self._sequence = 0

    def message(self) -> Sent:
        """The next one."""
        rng = self._random
        method = rng.choice(METHODS)
        messages, done = GOOD[method](self), [] if rng.random() < 0.1 else self._changes()
        for change in done:
            messages = change(self, messages)
        return Sent(method, self._encoded(method, messages), ", ".join(change.__name__ for change in done) or "good")

    def _changes(self) -> list[Callable[[Maker, list[Any]], list[Any]]]:
        return self._random.choices(CHANGES, k=self._random.randint(1, 3))

    def _encoded(self, method: Method, messages: Sequence[Message | bytes]) -> list[bytes]:
        data = [one if isinstance(one, bytes) else one.SerializeToString() for one in messages]
        data = [one[:MAX_BYTES] for one in data]
        return data if method.shape is Shape.STREAM_IN else data[:1] or [b""]

    # parts of good requests

    def size(self, most: int = MAX_BYTES) -> int:
        """Of any order of magnitude; one in eight is as large as may be, or nearly."""
        if self._random.random() < 0.125:
            return self._random.randint(most // 2, most)
        return int(most ** self._random.random())

    def header(self) -> pb.Header:
        return pb.Header(routing_epoch=self._header.routing_epoch, worker_id=self._random.randint(1, 50))

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def ids(self, most: int = 100_000) -> np.ndarray:
        """Ascending."""
        n = self.size(most)
        first = self._random.choice([0, 0, -(2**63), 2**62, 1000])
        gaps_N = np.random.default_rng(self._random.getrandbits(32)).integers(1, self._random.choice([2, 20, 2**30]), n)
        return first + np.cumsum(gaps_N, dtype=np.int64)

    def table_ids(self, most: int = 100_000, bags: bool = False) -> tuple[pb.TableIds, int, int]:
        """With how many ids and bags they are."""
        ids_N = self.ids(most)
        part = pb.TableIds(table=self._random.choice(list(TABLES)))
        if self._random.random() < 0.5:
            part.ids = ids_N.tobytes()
        else:
            part.sorted_ids = encode_sorted_ids(ids_N)
        if self._random.random() < 0.2:
            part.counts = self._random.randbytes(len(ids_N))
        if not bags or self._random.random() < 0.6:
            return part, len(ids_N), 0
        lengths_R = np.full(self.size(50_000), self._random.choice([1, 2, 9]))
        part.bags = encode_bags(lengths_R, np.arange(lengths_R.sum()) % len(ids_N), len(ids_N))
        return part, len(ids_N), len(lengths_R)

    def body(self, n: int) -> tuple[list[pb.Block], bytes]:
        """n rows, in any encoding."""
        encoding = self._random.choice(list(ENCODINGS))
        layout, _ = ENCODINGS[encoding]
        rows_R = None if layout is Layout.DENSE else np.flatnonzero(np.arange(n) % 3 == 0)
        values_ND = np.ones((n if rows_R is None else len(rows_R), DIM), np.float32)
        values_ND[:, ::2] *= self._random.choice([0, 1, -2])
        data = bytes(encode(ps.Selected(rows_R, values_ND, elements=True), encoding, n))
        return [pb.Block(encoding=encoding, bytes=len(data))], data

    def chunks(self, kind: Callable[..., Message], body: bytes) -> list[Message | bytes]:
        """A body in pieces of any size, of whole rows."""
        size = max(self.size(), 4 * DIM, len(body) // 5000) // (4 * DIM) * 4 * DIM
        return [kind(payload=body[start : start + size]) for start in range(0, len(body), size)]

    # changes

    def fields(self, messages: list[Any]) -> tuple[Message, list[Any]]:
        """One of the messages within, at any level, and all its fields."""
        found: list[Message] = []

        def walk(message: Message) -> None:
            found.append(message)
            for field, value in message.ListFields():
                if field.message_type is not None:
                    for inner in value[:FEW] if field.is_repeated else [value]:
                        walk(inner)

        for message in messages:
            if isinstance(message, Message):
                walk(message)
        chosen = self._random.choice(found or [pb.Header()])
        return chosen, list(chosen.DESCRIPTOR.fields)


def _prepare(make: Maker) -> list[Any]:
    tables = [make.table_ids(bags=True)[0] for _ in range(make._random.randint(1, 3))]
    for name, part in zip(TABLES, tables, strict=False):
        part.table = name
    return [pb.PrepareRequest(header=make.header(), step=make._random.randint(1, 99), ids=pb.IdSet(tables=tables))]


def _pull(make: Maker) -> list[Any]:
    part, _, _ = make.table_ids(bags=True)
    request = pb.PullRequest(header=make.header(), return_exists=make._random.random() < 0.5)
    if make._random.random() < 0.2:
        request.step.step = make._random.randint(1, 99)
    else:
        request.ids.tables.append(part)
    if make._random.random() < 0.5:
        precisions = [pb.PRECISION_FP32, pb.PRECISION_FP16, pb.PRECISION_INT8]
        share = make._random.choice([None, 0.5])
        one, other = make._random.choices(precisions, k=2)
        request.formats.append(pb.PullFormat(important=one, others=other, important_share=share, mask_below=0.1))
    return [request]


def _push(make: Maker) -> list[Any]:
    part, n, bags = make.table_ids(bags=True)
    blocks, body = make.body(n)
    shape = pb.PushedTable(table=part.table, rows=n, dim=DIM, blocks=blocks, bags=bags)
    if bags:
        bag_blocks, of_bags = make.body(bags)
        shape.bag_blocks.extend(bag_blocks)
        body = of_bags + body
    head = pb.PushHead(header=make.header(), sequence=make.next_sequence(), tables=[shape])
    if make._random.random() < 0.2:
        head.step.step = make._random.randint(1, 99)
    else:
        head.ids.tables.append(part)
    if make._random.random() < 0.1:
        head.round.CopyFrom(pb.Round(group="g", number=1, rank=0, ranks=make._random.choice([1, 1, 2])))
    return [pb.PushChunk(head=head), *make.chunks(pb.PushChunk, body)]


def _write(make: Maker) -> list[Any]:
    part, n, _ = make.table_ids(5000)
    blocks = [pb.Block(encoding=pb.ENCODING_FP32, bytes=4 * n * DIM)]
    head = pb.WriteHead(
        header=make.header(),
        sequence=make.next_sequence(),
        mode=make._random.choice([pb.WRITE_MODE_UPSERT, pb.WRITE_MODE_ASSIGN]),
        ids=part,
        shape=pb.PushedTable(table=part.table, rows=n, dim=DIM, blocks=blocks),
    )
    return [pb.WriteChunk(head=head), *make.chunks(pb.WriteChunk, np.ones((n, DIM), "<f4").tobytes())]


def _remove(make: Maker) -> list[Any]:
    part, n, _ = make.table_ids()
    statistics = bytes(8 * n) if make._random.random() < 0.5 else b""
    return [pb.RemoveRequest(header=make.header(), sequence=make.next_sequence(), ids=part, statistics=statistics)]


def _report(make: Maker) -> list[Any]:
    part, n, _ = make.table_ids()
    return [
        pb.ReportImportanceRequest(
            header=make.header(), sequence=make.next_sequence(), ids=part, scores=np.ones(n, "<f4").tobytes()
        )
    ]


def _export(make: Maker) -> list[Any]:
    rng = make._random
    return [
        pb.ExportRequest(
            header=make.header(),
            table=rng.choice(list(TABLES)),
            cursor=rng.choice(EDGES),
            max_rows=min(rng.choice(EDGES), 2**32 - 1),
            least=rng.choice(EDGES),
            highest_rank=rng.choice([0, 1, 2**63 - 1, -(2**63)]),
        )
    ]


def _create(make: Maker) -> list[Any]:
    rng = make._random
    colds = [ps.Fp16(), ps.TensorTrain(rows=rng.choice([1, 1000, 10**6, 2**40]), ranks=rng.choice([1, 8, 64])), None]
    name, cold = f"n{rng.randint(0, 3)}", rng.choice(colds)
    config = ps.TableConfig(name=name, dim=rng.choice([1, 4, 96, 65_536]), cold=cold)
    text = config.to_json()
    if rng.random() < 0.5:
        text = _other_json(rng, text)
    return [control.CreateTableRequest(config_json=text, exist_ok=rng.random() < 0.5)]


def _other_json(rng: random.Random, text: str) -> str:
    """Numbers beyond all bounds, keys that nobody knows, and what is no JSON."""
    n = int(60_000 ** rng.random())
    return rng.choice(
        [
            text.replace('"seed":0', '"seed":' + "9" * n),
            text.replace('"seed":0', '"half_life_pushes":' + str(rng.choice(EDGES)) + ',"seed":0'),
            text.replace('"seed":0', ",".join(f'"k{i}":1' for i in range(n // 8)) + ',"seed":0'),
            text.replace('"seed":0', '"seed":' + "[" * n + "]" * n),
            text.replace('"rows":1000', f'"rows":{rng.choice(EDGES)}'),
            text.replace('"hot_rows":10000', f'"hot_rows":{rng.choice(EDGES)}'),
            text.replace('"ranks":8', '"ranks":[1024,1024]'),
            text.replace('"p_shapes":null', f'"p_shapes":[{rng.choice(EDGES)},{rng.choice(EDGES)},1]'),
            text.replace(
                '{"kind":"always"}', f'{{"kind":"count_threshold","min_count":2,"cells":{rng.choice(EDGES)}}}'
            ),
            text.replace('"max_rows_per_shard":null', f'"max_rows_per_shard":{rng.choice(EDGES)}'),
            text.replace('"name":"n', '"name":"' + "x" * n),
            text[: rng.randrange(len(text))],
        ]
    )


def _drop(make: Maker) -> list[Any]:
    return [control.DropTableRequest(table=f"n{make._random.randint(0, 4)}", missing_ok=make._random.random() < 0.5)]


def _advance(make: Maker) -> list[Any]:
    ranks = make.size(4096)
    return [
        control.AdvanceRequest(
            group=f"g{make._random.randint(0, 3)}",
            rank=make._random.randrange(ranks),
            clocks=[1] * ranks,
            max_staleness=5,
        )
    ]


GOOD: dict[Method, Callable[[Maker], list[Any]]] = {
    methods.PREPARE: _prepare,
    methods.FORGET: lambda make: [pb.ForgetRequest(header=make.header(), step=make._random.randint(1, 99))],
    methods.PULL: _pull,
    methods.PUSH: _push,
    methods.WRITE: _write,
    methods.REMOVE: _remove,
    methods.REPORT_IMPORTANCE: _report,
    methods.EXPORT: _export,
    methods.DESCRIBE: lambda make: [control.DescribeRequest()],
    methods.CREATE_TABLE: _create,
    methods.DROP_TABLE: _drop,
    methods.STATS: lambda make: [control.StatsRequest()],
    methods.ADVANCE: _advance,
}


def _repeat(make: Maker, messages: list[Any]) -> list[Any]:
    """A message within, or an empty one, very often."""
    message, fields = make.fields(messages)
    fields = [field for field in fields if field.is_repeated and field.message_type is not None]
    if fields:
        field = make._random.choice(fields)
        values = getattr(message, field.name)
        inner = values[0] if len(values) and make._random.random() < 0.5 else field.message_type._concrete_class()
        n = make.size() // max(inner.ByteSize() + 2, 2)
        values.extend([inner] * n)
    return messages


def _number(make: Maker, messages: list[Any]) -> list[Any]:
    """Another number, mostly an edge of something."""
    message, fields = make.fields(messages)
    fields = [field for field in fields if field.cpp_type in _NUMBERS and not field.is_repeated]
    if fields:
        field = make._random.choice(fields)
        low, high = _NUMBERS[field.cpp_type]
        value = make._random.choice([*EDGES, make._random.getrandbits(64), *(-edge for edge in EDGES)])
        setattr(message, field.name, type(getattr(message, field.name))(min(max(value, low), high)))
    return messages


_D = pb.DESCRIPTOR.message_types_by_name["Header"].fields[0]
_NUMBERS = {
    _D.CPPTYPE_UINT32: (0, 2**32 - 1),
    _D.CPPTYPE_UINT64: (0, 2**64 - 1),
    _D.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    _D.CPPTYPE_ENUM: (0, 99),
    _D.CPPTYPE_FLOAT: (-1e38, 1e38),
    _D.CPPTYPE_BOOL: (0, 1),
}


def _bytes(make: Maker, messages: list[Any]) -> list[Any]:
    """Other bytes: longer, shorter, with another count in front."""
    rng = make._random
    message, fields = make.fields(messages)
    fields = [field for field in fields if field.cpp_type == field.CPPTYPE_STRING and not field.is_repeated]
    if not fields:
        return messages
    field = rng.choice(fields)
    value = getattr(message, field.name)
    if isinstance(value, str):
        setattr(message, field.name, rng.choice(["", "t", "x" * make.size(), "\u00e9" * 50, "\0", value * 3]))
        return messages
    changed = [
        lambda: value[: rng.randint(0, len(value))],
        lambda: value + bytes(make.size()),
        lambda: value + rng.randbytes(make.size()),
        lambda: min(rng.choice(EDGES), 2**32 - 1).to_bytes(4, "little") + value[4:],
        lambda: rng.randbytes(make.size()),
        lambda: bytes((make.size() * 8 - 1).bit_length() // 8) + value,
        lambda: _dense(make.size()),
        lambda: (make.size() * 4).to_bytes(4, "little") + b"\x01" + bytes(make.size()),
    ]
    setattr(message, field.name, rng.choice(changed)())
    return messages


def _dense(size: int) -> bytes:
    """Sorted ids of a bit each."""
    return encode_sorted_ids(np.arange(8 * max(size, 1)))


def _dense_ids(make: Maker, messages: list[Any]) -> list[Any]:
    """As many ids, and bags of them, as bits can say."""
    message, _ = make.fields(messages)
    if isinstance(message, pb.TableIds):
        message.ClearField("ids")
        message.sorted_ids = _dense(make.size(MAX_BYTES // 2))
        if make._random.random() < 0.3:
            message.ids, message.sorted_ids = bytes(8), b""
            size = make.size(MAX_BYTES // 2)
            message.bags = (8 * size).to_bytes(4, "little") + b"\x01" + bytes(2 * size)
    return messages


def _colliding(make: Maker, messages: list[Any]) -> list[Any]:
    """Ids whose hashes agree in their low 32 bits, in no order."""
    message, _ = make.fields(messages)
    if isinstance(message, pb.TableIds):
        n = make.size(MAX_BYTES // 8)
        ids_N = ids_of_hash(np.arange(1, n + 1, dtype=np.uint64) << np.uint64(32))
        message.ClearField("sorted_ids")
        message.ids = np.random.default_rng(n).permutation(ids_N).tobytes()
    return messages


def _clear(make: Maker, messages: list[Any]) -> list[Any]:
    """Without a field."""
    message, fields = make.fields(messages)
    message.ClearField(make._random.choice(fields).name) if fields else None
    return messages


def _unknown(make: Maker, messages: list[Any]) -> list[Any]:
    """Fields that nobody knows, very often, at any level."""
    message, _ = make.fields(messages)
    one = make._random.choice(
        [b"\xa0\x06\x01", b"\xa2\x06\x00", b"\xa2\x06\x03abc", b"\xa5\x06abcd", b"\xa3\x06\xa4\x06"]
    )
    message.MergeFromString(one * (make.size() // len(one)))
    return messages


def _raw(make: Maker, messages: list[Any]) -> list[Any]:
    """Bytes changed, cut, put in and repeated."""
    rng = make._random
    if not messages:
        return messages
    at = rng.randrange(len(messages))
    data = bytearray(messages[at] if isinstance(messages[at], bytes) else messages[at].SerializeToString())
    for _ in range(rng.randint(1, 8)):
        where = rng.randint(0, len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[where : where + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        elif kind == 1:
            del data[where:]
        elif kind == 2:
            piece = bytes(data[where : where + rng.randint(1, 64)])
            data[where:where] = piece * (make.size() // max(len(piece), 1))
        else:
            data[where:where] = rng.randbytes(make.size(4096))
    return [*messages[:at], bytes(data), *messages[at + 1 :]]


def _anything(make: Maker, messages: list[Any]) -> list[Any]:
    """No message at all."""
    rng = make._random
    size = make.size()
    return [rng.choice([rng.randbytes(size), b"\x08" * size, b"\x0a\x00" * (size // 2), b"\x78\x01" * (size // 2)])]


def _other_chunks(make: Maker, messages: list[Any]) -> list[Any]:
    """A stream's messages lost, doubled, in other orders, or in very small pieces."""
    rng = make._random
    kind = rng.randrange(4)
    if kind == 0:
        return messages[: rng.randint(0, len(messages))]
    if kind == 1:
        return messages + messages[1:]
    if kind == 2:
        return rng.sample(messages, len(messages))
    return messages[:1] + [codec.payload_message(bytes(rng.choice([0, 1, 16])))] * make.size(6000)


CHANGES: list[Callable[[Maker, list[Any]], list[Any]]] = [
    *(
        _repeat,
        _repeat,
        _number,
        _number,
        _bytes,
        _bytes,
        _bytes,
        _colliding,
        _clear,
        _dense_ids,
        _dense_ids,
        _unknown,
        _raw,
        _anything,
        _other_chunks,
    )
]

assert set(GOOD) == set(METHODS)
assert summing().dim == DIM
