"""Rows in blocks of two precisions, against numpy: each row once, important ones exact, the others within the bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ps
from ps.wire import blocks, encodings
from ps.wire.formats import PRECISIONS, TableFormat

F32 = np.float32
precisions = st.sampled_from(sorted(PRECISIONS))
formats = st.builds(TableFormat, precisions, precisions, st.just(0.5), st.sampled_from([0.0, 0.25, 3.0]))


def bound(rows_ND: np.ndarray, precision: str) -> np.ndarray:
    """How far a number may be off."""
    largest_N1 = np.abs(rows_ND).max(axis=1, initial=0, keepdims=True)
    return {
        "fp32": np.zeros_like(rows_ND),
        "fp16": np.maximum(np.abs(rows_ND) * 2.0**-11, 2.0**-25),
        "int8": largest_N1 / 254 * (1 + 2.0**-15) + 0 * rows_ND,
    }[precision]


def sent_and_read(
    selected: ps.Selected, n: int, form: TableFormat, important_N: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray]:
    written = blocks.encode(selected, n, form, important_N)
    assert [one.bytes for one in blocks.heads(written)] == [len(one.data) for one in written]
    dim = selected.grads_RD.shape[1]
    parts = [encodings.decode(bytes(one.data), one.encoding, n, dim) for one in written]
    return blocks.joined(iter(parts), n, dim)


@given(st.data(), formats, st.integers(0, 70), st.integers(1, 5), st.booleans(), st.booleans(), st.booleans())
def test_what_is_read_is_what_was_sent(
    data: st.DataObject, form: TableFormat, n: int, dim: int, some: bool, elements: bool, known: bool
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    chosen_N = rng.random(n) < (0.4 if some else 1)
    rows_R = np.flatnonzero(chosen_N) if some else None
    grads_RD = (rng.standard_normal((int(chosen_N.sum()), dim)) * 10.0 ** rng.integers(-6, 5)).astype(F32)
    important_N = rng.random(n) < data.draw(st.sampled_from([0, 0.3, 1])) if known else None
    sent_RD = blocks.masked(grads_RD, form.mask_below) if elements else grads_RD
    got_R, got_RD = sent_and_read(ps.Selected(rows_R, sent_RD, elements), n, form, important_N)
    assert got_R is None if chosen_N.all() else got_R.tolist() == np.flatnonzero(chosen_N).tolist()
    flags_R = np.ones(len(grads_RD), np.bool_) if important_N is None else important_N[chosen_N]
    for precision, of_R in ((form.important, flags_R), (form.others, ~flags_R)):
        assert (np.abs(got_RD[of_R] - sent_RD[of_R]) <= bound(sent_RD[of_R], precision)).all()
    np.testing.assert_array_equal(got_RD[sent_RD == 0], 0)


def test_rows_of_two_precisions_take_fewer_bytes_than_of_the_better() -> None:
    rng = np.random.default_rng(0)
    selected, important_N = ps.Selected(None, rng.standard_normal((1000, 64), F32)), np.arange(1000) < 100

    def size(form: TableFormat, flags_N: np.ndarray | None) -> int:
        return sum(len(one.data) for one in blocks.encode(selected, 1000, form, flags_N))

    mixed = TableFormat("fp32", "int8")
    assert size(mixed, important_N) == 2 * 128 + 100 * 256 + 900 * 68, "two bitmaps of 1000 bits, and the rows"
    assert size(mixed, None) == size(TableFormat(), None) == 1000 * 256, "who is important is not known: exact"
    assert size(mixed, np.zeros(1000, np.bool_)) == 1000 * 68


def test_zeros_are_left_out_where_that_is_fewer_bytes() -> None:
    rows_ND = np.zeros((100, 64), F32)
    rows_ND[:, :8] = 2
    rows_ND[:, 8:] = 1e-3
    (plain,) = blocks.encode(ps.Selected(None, rows_ND), 100, TableFormat())
    (masked,) = blocks.encode(ps.Selected(None, blocks.masked(rows_ND, 0.01), True), 100, TableFormat())
    assert len(plain.data) == 100 * 256
    assert len(masked.data) == 16 + 100 * 8 + 100 * 32, "bitmap, masks, values"


def test_without_a_mask_rows_are_not_copied() -> None:
    rows_ND = np.ones((3, 4), F32)
    assert blocks.masked(rows_ND, 0) is rows_ND
    (block,) = blocks.whole(rows_ND)
    assert np.shares_memory(np.frombuffer(block.data, F32), rows_ND)
    assert block.unit == 16
    assert blocks.whole(rows_ND[:0]) == []


def test_a_row_in_two_blocks_is_refused() -> None:
    row = np.ones((1, 2), F32)
    with pytest.raises(ps.InvalidArgument, match="in two blocks"):
        blocks.joined(iter([(np.array([1]), row), (np.array([0]), row), (np.array([1]), row)]), 3, 2)
    with pytest.raises(ps.InvalidArgument, match="in two blocks"):
        blocks.joined(iter([(np.array([1]), row), (None, np.ones((3, 2), F32))]), 3, 2)


def test_no_blocks_are_no_rows() -> None:
    rows_R, grads_RD = blocks.joined(iter([]), 1 << 40, 3)
    assert rows_R is not None
    assert (rows_R.shape, grads_RD.shape) == ((0,), (0, 3))
    assert blocks.joined(iter([]), 0, 3)[0] is None
