"""Encodes arrays to messages and back, against a plain copy of the same bytes and against protobuf's own repeated
float."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from benchmarks.harness.data import generator, gradients, random_ids
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from ps.wire import blocks, codec, encodings
from ps.wire.encodings import NUMBERS
from ps.wire.formats import TableFormat
from ps.wire.selected import Selected

REPEATED_ROWS = 4_096
"""Rows of the comparison with repeated float, which would take seconds for a whole batch."""


def run(report: Report, sizes: Sizes) -> None:
    """Measures encoding and decoding. Decoding includes the copy into the reader's array, as a client does it: without
    it, decoding is a view."""
    rng = generator()
    _ids(report, sizes, random_ids(rng, sizes.batch))
    for dtype in NUMBERS:
        _rows(report, sizes, dtype, gradients(rng, sizes.batch, sizes.dim))
    _repeated(report, sizes, gradients(rng, min(REPEATED_ROWS, sizes.batch), sizes.dim))


def _ids(report: Report, sizes: Sizes, ids_N: np.ndarray) -> None:
    encoded = codec.encode_ids(ids_N)
    out_N = ids_N.copy()
    rounds = interleave(
        sizes.rounds,
        {
            "encode": Contender(lambda _: codec.encode_ids(ids_N)),
            "decode": Contender(lambda _: np.copyto(out_N, codec.decode_ids(encoded))),
            "memcpy": Contender(lambda _: np.copyto(out_N, ids_N)),
        },
    )
    for way in ("encode", "decode"):
        report.add("ids", f"{way}_mb_per_s", rounds.per_second(way, ids_N.nbytes / 1e6))
        report.add("ids", f"{way}_vs_memcpy", rounds.speed_ratio(way, "memcpy"))


def _rows(report: Report, sizes: Sizes, dtype: str, rows_ND: np.ndarray) -> None:
    out_ND, form = np.ones_like(rows_ND), TableFormat.of(dtype)

    def encode(_: int) -> list[blocks.EncodedBlock]:
        written = blocks.encode(Selected(None, rows_ND), len(rows_ND), form)
        for payload in codec.pieces((block.data, block.unit) for block in written):
            codec.payload_message(payload)  # dropped at once, as it is when it has been sent
        return written

    def decode(_: int) -> None:
        np.copyto(out_ND, encodings.decode(encoded.data, encoded.encoding, *rows_ND.shape)[1])

    (encoded,) = encode(0)
    rounds = interleave(
        sizes.rounds,
        {
            "encode": Contender(encode),
            "decode": Contender(decode),
            "memcpy": Contender(lambda _: np.copyto(out_ND, rows_ND)),
        },
    )
    for way in ("encode", "decode"):
        report.add(f"rows_{dtype}", f"{way}_mb_per_s", rounds.per_second(way, rows_ND.nbytes / 1e6))
        report.add(f"rows_{dtype}", f"{way}_vs_memcpy", rounds.speed_ratio(way, "memcpy"))


def _repeated(report: Report, sizes: Sizes, rows_ND: np.ndarray) -> None:
    kind = _repeated_float()

    def encode() -> list[bytes]:
        written = blocks.whole(rows_ND)
        return [codec.payload_message(payload) for payload in codec.pieces((one.data, one.unit) for one in written)]

    ours = encode()
    theirs = kind(values=rows_ND.reshape(-1)).SerializeToString()
    rounds = interleave(
        sizes.rounds,
        {
            "encode": Contender(lambda _: encode()),
            "decode": Contender(lambda _: [codec.decode_rows(codec.payload_of(m)).copy() for m in ours]),
            "repeated_encode": Contender(lambda _: kind(values=rows_ND.reshape(-1)).SerializeToString()),
            "repeated_decode": Contender(lambda _: np.array(kind.FromString(theirs).values, np.float32)),
        },
    )
    for way in ("encode", "decode"):
        report.add("repeated_float", f"{way}_mb_per_s", rounds.per_second(f"repeated_{way}", rows_ND.nbytes / 1e6))
        report.add("small_rows_fp32", f"{way}_vs_repeated_float", rounds.speed_ratio(way, f"repeated_{way}"))


def _repeated_float() -> Any:
    """Makes the class of `message Floats { repeated float values = 1; }`."""
    file = descriptor_pb2.FileDescriptorProto(name="benchmarks/floats.proto", package="benchmarks", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    file.message_type.add(name="Floats").field.add(
        name="values", number=1, type=field.TYPE_FLOAT, label=field.LABEL_REPEATED
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("benchmarks.Floats"))
