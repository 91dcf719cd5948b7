"""The dense part's payload: selected elements as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ps.errors import InvalidArgument
from ps.nn.dense.payload import ALL, BITMAP, GAPS8, GAPS16, HEADER_BYTES, pack, unpack


@given(
    n=st.integers(1, 3000),
    density=st.sampled_from([0.0, 0.0005, 0.01, 0.1, 0.5, 1.0]),
    kind=st.sampled_from(["fp32", "fp16"]),
    scale=st.sampled_from([1e-30, 1e-6, 1.0, 1e30]),
    seed=st.integers(0, 2**31),
)
def test_what_is_packed_is_what_is_read(n: int, density: float, kind: Any, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    positions = torch.from_numpy(np.flatnonzero(rng.random(n) < density))
    values = torch.from_numpy((scale * rng.standard_normal(len(positions))).astype(np.float32))
    packed = pack(positions, values, n, kind)
    read_positions, read_values = unpack(packed.payload, n, kind)
    assert torch.equal(read_positions, positions)
    assert torch.equal(read_values, packed.values_k)
    assert len(packed.payload) == HEADER_BYTES + packed.position_bytes + packed.value_bytes
    assert packed.value_bytes == len(values) * (4 if kind == "fp32" else 2)
    assert packed.position_bytes <= (n + 7) // 8
    if kind == "fp32":
        assert torch.equal(read_values, values)
    elif len(values):
        torch.testing.assert_close(read_values, values, rtol=2**-11, atol=float(values.abs().max()) * 2.0**-38)


@pytest.mark.parametrize(
    ("positions", "n", "kind"),
    [
        (list(range(9)), 9, ALL),
        ([0, 2, 4, 8], 9, BITMAP),
        ([0, 254, 255, 511, 1022], 3000, GAPS8),
        ([65_534, 65_535, 2_000_000], 3_000_000, GAPS16),
        ([], 3000, GAPS8),
    ],
)
def test_the_shortest_way_to_say_where(positions: list[int], n: int, kind: int) -> None:
    packed = pack(torch.tensor(positions, dtype=torch.int64), torch.ones(len(positions)), n, "fp16")
    assert packed.payload[0] == kind
    assert unpack(packed.payload, n, "fp16")[0].tolist() == positions


@given(data=st.binary(max_size=60), n=st.integers(0, 100), kind=st.sampled_from(["fp32", "fp16"]))
def test_foreign_bytes_are_refused_or_lie_inside(data: bytes, n: int, kind: Any) -> None:
    try:
        positions, values = unpack(torch.tensor(list(data), dtype=torch.uint8), n, kind)
    except InvalidArgument:
        return
    assert len(positions) == len(values)
    assert positions.tolist() == sorted(set(positions.tolist()) & set(range(n)))


def test_the_arithmetic_of_a_hundred_times() -> None:
    """The table of ps/nn/dense/config.py, on random gradients of a million elements."""
    n, rng = 1_000_000, np.random.default_rng(3)
    for density, kind, expected in ((0.01, "fp16", 129.7), (0.01, "fp32", 78.7), (0.005, "fp32", 148.5)):
        positions = torch.from_numpy(np.sort(rng.choice(n, round(density * n), replace=False)))
        packed = pack(positions, torch.ones(len(positions)), n, kind)
        assert 4 * n / (8 + len(packed.payload)) == pytest.approx(expected, rel=0.005)
