"""Blocks of rows and elements <-> bytes: as precise as they say, of the size that they say, and never an exception of
another kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps.errors import DimensionMismatch, DtypeMismatch, InvalidArgument, LengthMismatch, NonFiniteGradient
from ps.v1 import embedding_pb2 as pb
from ps.wire.encodings import ENCODINGS, Layout, cheapest, decode, encode, encoded_bytes
from ps.wire.selected import Selected

F32 = np.float32
ALL = sorted(ENCODINGS)
NAMES = [pb.Encoding.Name(encoding) for encoding in ALL]
every_encoding = pytest.mark.parametrize("encoding", ALL, ids=NAMES)
shapes = st.tuples(st.integers(0, 150), st.sampled_from([1, 2, 3, 5, 31, 64, 65]))
densities = st.sampled_from([0.0, 0.03, 0.3, 1.0])
seeds = st.integers(0, 2**32)


def selection(n: int, dim: int, rows: float, elements: float, seed: int) -> Selected:
    """Of magnitudes that fp16 has, and a few zeros even where elements are all there."""
    rng = np.random.default_rng(seed)
    rows_R = np.flatnonzero(rng.random(n) < rows)
    grads_RD = (rng.standard_normal((len(rows_R), dim)) * 10.0 ** rng.uniform(-9, 4, (len(rows_R), 1))).astype(F32)
    grads_RD[rng.random(grads_RD.shape) >= elements] = 0
    return Selected(rows_R, grads_RD, elements=elements < 1)


def fits(encoding: int, selected: Selected, n: int) -> Selected:
    """With all rows, for a dense encoding."""
    if ENCODINGS[encoding][0] is not Layout.DENSE or selected.rows_R is None:
        return selected
    grads_ND = np.zeros((n, selected.grads_RD.shape[1]), F32)
    grads_ND[selected.rows_R] = selected.grads_RD
    return Selected(None, grads_ND, selected.elements)


def bound(precision: str, grads_RD: np.ndarray) -> np.ndarray:
    """How far a value may be off, for each."""
    exact_RD = np.abs(grads_RD.astype(np.float64))
    if precision == "fp32":
        return np.zeros_like(exact_RD)
    if precision == "fp16":
        return np.maximum(exact_RD * 2.0**-11, 2.0**-25)
    scales_R1 = np.maximum(exact_RD.max(axis=1, keepdims=True, initial=0) / 127, 2.0**-126)
    return np.broadcast_to(scales_R1 * (0.5 + 2.0**-15), exact_RD.shape)


@every_encoding
@given(shape=shapes, rows=densities, elements=densities, seed=seeds)
def test_a_block_comes_back_within_its_bound_and_has_the_size_that_arithmetic_says(
    encoding: int, shape: tuple[int, int], rows: float, elements: float, seed: int
) -> None:
    n, dim = shape
    selected = fits(encoding, selection(n, dim, rows, elements, seed), n)
    block = encode(selected, encoding, n)
    rows_R, grads_RD = decode(block, encoding, n, dim)
    layout, precision = ENCODINGS[encoding]
    if layout is Layout.DENSE:
        assert rows_R is None
    else:
        np.testing.assert_array_equal(rows_R, selected.rows_R)
    assert grads_RD.dtype == F32
    off_RD = np.abs(grads_RD.astype(np.float64) - selected.grads_RD)
    assert (off_RD <= bound(precision, selected.grads_RD)).all()
    assert (grads_RD[selected.grads_RD == 0] == 0).all()
    values = int(np.count_nonzero(selected.grads_RD))
    assert len(block) == encoded_bytes(encoding, n, dim, len(grads_RD), values)
    assert len(block) % 4 == 0


@every_encoding
def test_all_rows_need_not_be_listed(encoding: int) -> None:
    grads_ND = np.arange(1, 25, dtype=F32).reshape(8, 3)
    block = encode(Selected(None, grads_ND), encoding, 8)
    assert block == encode(Selected(np.arange(8), grads_ND), encoding, 8)
    assert len(block) == encoded_bytes(encoding, 8, 3)


def test_fp32_is_exact_to_the_bit_and_read_where_it_lies() -> None:
    grads_RD = np.array([[np.nan, -0.0], [np.inf, 2.0**-149]], F32)
    for encoding, rows_R in ((pb.ENCODING_FP32, None), (pb.ENCODING_ROWS_FP32, np.array([0, 1]))):
        block = bytes(encode(Selected(rows_R, grads_RD), encoding, 2))
        back_RD = decode(block, encoding, 2, 2)[1]
        assert back_RD.tobytes() == grads_RD.tobytes()
        assert np.shares_memory(back_RD, np.frombuffer(block, np.uint8))
        assert not back_RD.flags.writeable
    assert np.shares_memory(np.frombuffer(encode(Selected(None, grads_RD), pb.ENCODING_FP32, 2), np.uint8), grads_RD)


@every_encoding
def test_arrays_of_another_type_or_order_are_converted(encoding: int) -> None:
    grads_ND = np.arange(-12, 12, dtype=F32).reshape(8, 3)
    for other in (grads_ND.astype(np.float64), np.asfortranarray(grads_ND), np.repeat(grads_ND, 2, axis=0)[::2]):
        assert encode(Selected(None, other), encoding, 8) == encode(Selected(None, grads_ND), encoding, 8)


def test_elements_that_are_zero_are_not_sent_and_nan_is() -> None:
    grads_RD = np.array([[0.0, -0.0, np.nan], [0.0, 0.0, 0.0], [7.0, 0.0, 0.0]], F32)
    block = encode(Selected(np.array([1, 4, 5]), grads_RD, elements=True), pb.ENCODING_ELEMENTS_FP32, 6)
    assert len(block) == 4 + 4 + 2 * 4
    rows_R, back_RD = decode(block, pb.ENCODING_ELEMENTS_FP32, 6, 3)
    np.testing.assert_array_equal(rows_R, [1, 4, 5])
    np.testing.assert_array_equal(back_RD, grads_RD)


@every_encoding
@given(shape=shapes, seed=seeds, shift=st.integers(1, 3))
def test_bytes_at_any_place_are_read(encoding: int, shape: tuple[int, int], seed: int, shift: int) -> None:
    n, dim = shape
    block = encode(fits(encoding, selection(n, dim, 0.5, 0.5, seed), n), encoding, n)
    shifted = memoryview(bytearray(bytes(shift) + bytes(block)))[shift:]
    for one, other in zip(decode(shifted, encoding, n, dim), decode(bytes(block), encoding, n, dim), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_layout_is_what_the_grammar_says() -> None:
    """Written out by hand, so that a change of the format is seen."""
    selected = Selected(np.array([1, 33]), np.array([[0, 2, 0], [-4, 0, 1]], F32), elements=True)
    bitmap = bytes([2, 0, 0, 0, 2, 0, 0, 0])
    masks = bytes([0b101010, 0, 0, 0])
    scales = np.array([2, 4], F32) / F32(127)
    assert encode(selected, pb.ENCODING_ELEMENTS_FP32, 40) == bitmap + masks + np.array([2, -4, 1], "<f4").tobytes()
    assert encode(selected, pb.ENCODING_ELEMENTS_FP16, 40) == bitmap + masks + np.array([2, -4, 1, 0], "<f2").tobytes()
    assert encode(selected, pb.ENCODING_ELEMENTS_INT8, 40) == bitmap + masks + scales.tobytes() + bytes(
        [127, 129, 32, 0]
    )
    assert encode(selected, pb.ENCODING_ROWS_FP32, 40) == bitmap + np.array([0, 2, 0, -4, 0, 1], "<f4").tobytes()
    whole = Selected(None, selected.grads_RD)
    assert encode(whole, pb.ENCODING_INT8, 2) == scales.tobytes() + bytes([0, 127, 0, 129, 0, 32, 0, 0])


# choosing


@given(shapes, densities, densities, seeds, st.sampled_from(["fp32", "fp16", "int8"]))
def test_the_cheapest_is_the_shortest_of_those_that_may_be(
    shape: tuple[int, int], rows: float, elements: float, seed: int, precision: str
) -> None:
    n, dim = shape
    selected = selection(n, dim, rows, elements, seed)
    chosen = cheapest(selected, precision, n)
    assert ENCODINGS[chosen][1] in (precision, "fp32")
    for encoding in ALL:
        layout, name = ENCODINGS[encoding]
        possible = layout is not Layout.DENSE or len(selected.grads_RD) == n
        if name == precision and possible and (selected.elements or layout is not Layout.ELEMENTS):
            assert len(encode(selected, chosen, n)) <= len(encode(selected, encoding, n))


def test_the_cheapest_of_some_cases() -> None:
    grads_RD = np.ones((50, 64), F32)
    some = Selected(np.arange(50), grads_RD)
    assert cheapest(some, "fp16", 50) == pb.ENCODING_FP16
    assert cheapest(some, "fp16", 51) == pb.ENCODING_ROWS_FP16
    assert cheapest(Selected(some.rows_R, grads_RD, elements=True), "int8", 51) == pb.ENCODING_ROWS_INT8
    grads_RD[:, ::2] = 0
    assert cheapest(Selected(some.rows_R, grads_RD, elements=True), "int8", 51) == pb.ENCODING_ELEMENTS_INT8
    assert cheapest(Selected(None, grads_RD[:, :1]), "int8", 50) == pb.ENCODING_FP32, "a scale is as long as the value"
    with pytest.raises(DtypeMismatch, match="'bf16'"):
        cheapest(some, "bf16", 50)


# refusals of the sender


@pytest.mark.parametrize("rows", [[0, 0], [1, 0], [-1, 0], [0, 9]])
def test_rows_that_do_not_ascend_within_the_step_are_refused(rows: list[int]) -> None:
    with pytest.raises(InvalidArgument, match=r"ascend.*within \[0, 9\)"):
        encode(Selected(np.array(rows), np.ones((2, 3), F32)), pb.ENCODING_ROWS_FP32, 9)


def test_a_dense_block_of_some_rows_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="ENCODING_FP16 of 2 of 9 rows"):
        encode(Selected(np.array([1, 2]), np.ones((2, 3), F32)), pb.ENCODING_FP16, 9)
    with pytest.raises(LengthMismatch, match="2 rows, and 1 were selected"):
        encode(Selected(np.array([1]), np.ones((2, 3), F32)), pb.ENCODING_ROWS_FP16, 9)
    with pytest.raises(LengthMismatch, match="2 rows, and 9 were selected"):
        encode(Selected(None, np.ones((2, 3), F32)), pb.ENCODING_FP16, 9)


@pytest.mark.parametrize(
    ("encoding", "value", "sound"),
    [
        (pb.ENCODING_FP16, 65520, False),
        (pb.ENCODING_FP16, np.nextafter(F32(65520), F32(0)), True),
        (pb.ENCODING_FP16, np.nan, False),
        (pb.ENCODING_ROWS_FP16, -np.inf, False),
        (pb.ENCODING_ELEMENTS_FP16, -1e6, False),
        (pb.ENCODING_INT8, np.nan, False),
        (pb.ENCODING_ROWS_INT8, np.inf, False),
        (pb.ENCODING_ELEMENTS_INT8, 2.0**127, False),
        (pb.ENCODING_INT8, np.nextafter(F32(2.0**127), F32(0)), True),
    ],
)
def test_what_the_numbers_cannot_hold_is_refused(encoding: int, value: float, sound: bool) -> None:
    selected = Selected(None, np.array([[0, value]], F32))
    if sound:
        assert np.isfinite(decode(encode(selected, encoding, 1), encoding, 1, 2)[1]).all()
    else:
        with pytest.raises(NonFiniteGradient, match="cannot hold"):
            encode(selected, encoding, 1)


def test_an_unknown_encoding_is_named() -> None:
    for call in (
        lambda: encode(Selected(None, np.ones((1, 1), F32)), 99, 1),
        lambda: decode(b"", 99, 1, 1),
        lambda: encoded_bytes(pb.ENCODING_UNSPECIFIED, 1, 1),
    ):
        with pytest.raises(DtypeMismatch, match="wire encoding"):
            call()


# malformed bytes

ROWS_OF_3 = bytes([0b101, 0, 0, 0])


@pytest.mark.parametrize(
    ("encoding", "payload", "n", "dim", "error", "match"),
    [
        (pb.ENCODING_FP32, bytes(4), -1, 1, DimensionMismatch, "-1 rows"),
        (pb.ENCODING_FP32, b"", 0, 0, DimensionMismatch, "dim 0"),
        (pb.ENCODING_FP32, b"", 0, 2**32, DimensionMismatch, "dim 4294967296"),
        (pb.ENCODING_FP32, bytes(20), 2, 3, LengthMismatch, "take 24 bytes with their padding, and 20 are left"),
        (pb.ENCODING_FP32, bytes(28), 2, 3, LengthMismatch, "and 28 are left"),
        (pb.ENCODING_FP32, b"", 2**63, 2**31, LengthMismatch, "and 0 are left"),
        (pb.ENCODING_FP16, bytes(2), 1, 1, LengthMismatch, "take 4 bytes with their padding"),
        (pb.ENCODING_FP16, bytes([0, 0, 1, 0]), 1, 1, InvalidArgument, "padding is not zero"),
        (pb.ENCODING_ROWS_FP32, b"\1\0\0", 3, 1, LengthMismatch, "bitmap of rows takes 4 bytes, and 3 are left"),
        (pb.ENCODING_ROWS_FP32, bytes(8), 2**64, 1, LengthMismatch, "bitmap of rows takes"),
        (pb.ENCODING_ROWS_FP32, b"\x08\0\0\0\0\0\0\0", 3, 1, InvalidArgument, "bit beyond its 3"),
        (pb.ENCODING_ROWS_FP32, b"\0\0\0\x80" + bytes(4), 31, 1, InvalidArgument, "bit beyond its 31"),
        (pb.ENCODING_ROWS_FP32, ROWS_OF_3 + bytes(4), 3, 1, LengthMismatch, "2 values of 2 rows take 8 bytes"),
        (pb.ENCODING_ROWS_FP32, ROWS_OF_3 + bytes(8), 3, 2**31, LengthMismatch, "and 8 are left"),
        (pb.ENCODING_ELEMENTS_FP32, ROWS_OF_3 + bytes(8), 3, 2**31, LengthMismatch, "masks of elements takes"),
        (pb.ENCODING_ELEMENTS_FP32, ROWS_OF_3 + b"\1\1\0\0" + bytes(4), 3, 4, InvalidArgument, "bit beyond its 8"),
        (pb.ENCODING_ELEMENTS_FP32, ROWS_OF_3 + b"\x81\0\0\0" + bytes(4), 3, 4, LengthMismatch, "2 values of 2 rows"),
        (pb.ENCODING_INT8, bytes(8), 1, 3, InvalidArgument, r"row 0 of those sent has the scale 0\.0"),
        (pb.ENCODING_INT8, F32(1).tobytes() + b"\x80\0\0\0", 1, 3, InvalidArgument, "item of -128"),
        (pb.ENCODING_ROWS_INT8, ROWS_OF_3 + F32(1).tobytes(), 3, 1, LengthMismatch, "take 12 bytes"),
    ],
)
def test_what_is_wrong_with_malformed_bytes_is_said(
    encoding: int, payload: bytes, n: int, dim: int, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        decode(payload, encoding, n, dim)


@every_encoding
@given(payload=st.binary(max_size=200), n=st.integers(0, 70) | st.integers(-1, 2**64), dim=st.integers(0, 70))
def test_random_bytes_are_rows_or_refused(encoding: int, payload: bytes, n: int, dim: int) -> None:
    check(payload, encoding, n, dim)


@every_encoding
@given(data=st.data(), shape=shapes, rows=densities, elements=densities, seed=seeds)
def test_damaged_blocks_are_rows_or_refused(
    encoding: int, data: Any, shape: tuple[int, int], rows: float, elements: float, seed: int
) -> None:
    """Bytes flipped, cut and inserted, or read as of another shape or encoding."""
    n, dim = shape
    damaged = bytearray(encode(fits(encoding, selection(n, dim, rows, elements, seed), n), encoding, n))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        if data.draw(st.booleans()):
            damaged[at : at + 1] = data.draw(st.binary(max_size=4))
        else:
            del damaged[at:]
    n, dim = n + data.draw(st.integers(0, 2)), dim + data.draw(st.integers(0, 1))
    check(bytes(damaged), data.draw(st.sampled_from([encoding, *ALL])), n, dim)


def check(payload: bytes, encoding: int, n: int, dim: int) -> None:
    """What is taken is what another block of the same size says too."""
    try:
        rows_R, grads_RD = decode(payload, encoding, n, dim)
    except InvalidArgument:
        return
    assert grads_RD.shape == (n if rows_R is None else len(rows_R), dim)
    assert grads_RD.dtype == F32
    assert rows_R is None or ((rows_R >= 0) & (rows_R < n)).all()
    if ENCODINGS[encoding] in ((Layout.DENSE, "fp32"), (Layout.ROWS, "fp32")):
        assert bytes(encode(Selected(rows_R, grads_RD), encoding, n)) == payload
