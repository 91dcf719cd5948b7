"""Ids as a real web shop asked for them: skewed, repeated, hashed to all of int64."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

import ps
from tests.loopback.tables import DIM, block, weighing


@pytest.fixture(scope="module")
def trace_N(shared_data: Path) -> np.ndarray:  # noqa: N802  an array, so its name carries its shape
    """Accessed objects, in order: int64."""
    path = shared_data / "traces" / "web12.trace.xz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the data folder")
    return np.frombuffer(lzma.decompress(path.read_bytes()), ">i4").astype(np.int64)


def test_frequencies_and_sums_are_those_of_the_trace(client: ps.Client, trace_N: np.ndarray) -> None:
    """Batches of 4096 in step form; each access has the gradient 1."""
    ids_N = trace_N * np.int64(0x1E3779B97F4A7C15)  # wraps: spread over all of int64, distinct as before
    client.create_table(weighing(frequency=0, occurrences=1))
    steps = [client.prepare({"w": batch}) for batch in np.array_split(ids_N, len(ids_N) // 4096 + 1)]
    for step, batch in zip(steps, np.array_split(ids_N, len(steps)), strict=True):
        assert step.pull()["w"].shape == (len(batch), DIM)
        step.push({"w": block(np.ones(len(batch)))})
    distinct, counts = np.unique(ids_N, return_counts=True)
    pages = list(client.export("w"))
    found_N, rows_ND, scores_N = (np.concatenate(parts) for parts in zip(*pages, strict=True))
    order_N = np.argsort(found_N)
    np.testing.assert_array_equal(found_N[order_N], distinct)
    np.testing.assert_array_equal(scores_N[order_N], counts)
    np.testing.assert_array_equal(rows_ND[order_N], -block(counts))
    assert counts.max() > 100, "a skewed trace"
