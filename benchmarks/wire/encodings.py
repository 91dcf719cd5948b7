"""Encodes gradients in every encoding at several densities: bytes, and time against sending the saved bytes at 10
Gbit/s."""

from __future__ import annotations

import numpy as np

from benchmarks.harness.data import generator, gradients
from benchmarks.harness.measure import Contender, Rounds, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from ps.arrays import Ids
from ps.kernels import warm_up
from ps.v1 import embedding_pb2 as pb
from ps.wire.encodings import ENCODINGS, Layout, decode, encode
from ps.wire.selected import Selected
from ps.wire.sorted_ids import decode_sorted_ids, encode_sorted_ids

DENSITIES = (0.01, 0.05, 0.2, 1.0)
BYTES_PER_S = 10e9 / 8


def run(report: Report, sizes: Sizes) -> None:
    """Measures random gradients. With single elements every row has some. Where `time_vs_sending` is below 1, encoding
    took less time than it saved."""
    warm_up()
    rng = generator()
    grads_UD = gradients(rng, sizes.batch, sizes.dim)
    for encoding, (layout, _) in ENCODINGS.items():
        for density in DENSITIES if layout is not Layout.DENSE else (1.0,):
            selected = _selected(rng, grads_UD, layout, density)
            _block(report, sizes, encoding, selected, f"{pb.Encoding.Name(encoding)[9:].lower()}_{density:g}")
    for case, low, high in (("10_7", 0, 10**7), ("hashed", -(2**63), 2**63 - 1)):
        _ids(report, sizes, f"ids_{case}", np.unique(rng.integers(low, high, sizes.batch)))


def _ids(report: Report, sizes: Sizes, case: str, ids_N: Ids) -> None:
    data = encode_sorted_ids(ids_N)
    rounds = interleave(
        sizes.rounds,
        {
            "encode": Contender(lambda _: encode_sorted_ids(ids_N)),
            "decode": Contender(lambda _: decode_sorted_ids(data)),
        },
    )
    report.add(case, "bytes_an_id", [len(data) / len(ids_N)])
    _times(report, case, rounds, len(ids_N), ids_N.nbytes - len(data))


def _selected(rng: np.random.Generator, grads_UD: np.ndarray, layout: Layout, density: float) -> Selected:
    if layout is Layout.DENSE:
        return Selected(None, grads_UD)
    if layout is Layout.ROWS:
        rows_R = np.flatnonzero(rng.random(len(grads_UD)) < density)
        return Selected(rows_R, grads_UD[rows_R])
    some_UD = np.where(rng.random(grads_UD.shape) < density, grads_UD, np.float32(0))
    rows_R = np.flatnonzero(some_UD.any(axis=1))
    return Selected(rows_R, some_UD[rows_R], elements=True)


def _block(report: Report, sizes: Sizes, encoding: int, selected: Selected, case: str) -> None:
    block = bytes(encode(selected, encoding, sizes.batch))
    rounds = interleave(
        sizes.rounds,
        {
            "encode": Contender(lambda _: encode(selected, encoding, sizes.batch)),
            "decode": Contender(lambda _: decode(block, encoding, sizes.batch, sizes.dim)),
        },
    )
    dense = 4 * sizes.batch * sizes.dim
    report.add(case, "bytes_saved_factor", [dense / len(block)])
    _times(report, case, rounds, sizes.batch, dense - len(block))


def _times(report: Report, case: str, rounds: Rounds, rows: int, saved: int) -> None:
    for way in ("encode", "decode"):
        per_s = rounds.per_second(way, rows)
        report.add(case, f"{way}_ns_per_row", [1e9 / one for one in per_s])
        if saved > 0:
            report.add(case, f"{way}_time_vs_sending", [rows / one * BYTES_PER_S / saved for one in per_s])
