"""What users pass in: any integer ids, any float rows, numpy or torch; nothing is ever cut in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ps.array_like import as_counts, as_ids, as_rows, is_torch, like
from ps.errors import DimensionMismatch, DtypeMismatch, LengthMismatch

INT64 = np.iinfo(np.int64)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i8", ">i4"])
def test_integers_of_every_width_and_byte_order_are_ids(dtype: str) -> None:
    ids = as_ids(np.array([[0, 1], [2, 127]], dtype))
    assert ids.dtype == np.int64
    assert ids.dtype.isnative
    assert ids.tolist() == [[0, 1], [2, 127]]


@pytest.mark.parametrize(
    "given", [[1, -2], (1, -2), np.array([1, 9, -2])[::2], torch.tensor([1, -2]), torch.tensor([1, -2]).int()]
)
def test_sequences_views_and_tensors_are_ids(given: Any) -> None:
    ids = as_ids(given)
    assert ids.tolist() == [1, -2]
    assert ids.flags.c_contiguous


@pytest.mark.parametrize("given", [[], (), torch.empty(0), torch.empty(0, dtype=torch.int32), np.empty(0, np.int16)])
def test_nothing_is_no_ids(given: Any) -> None:
    ids = as_ids(given)
    assert (ids.dtype, ids.shape) == (np.int64, (0,))


@pytest.mark.parametrize("value", [INT64.min, -1, 0, 2**32 + 1, 2**53 + 1, INT64.max])
def test_every_int64_stays_itself(value: int) -> None:
    assert as_ids([value]).tolist() == [value]
    assert as_ids(torch.tensor([value])).tolist() == [value]
    assert as_ids(np.array([value])).tolist() == [value]


@pytest.mark.parametrize("value", [2**63, 2**64 - 1])
def test_an_unsigned_id_beyond_int64_is_refused_and_told_what_to_do(value: int) -> None:
    with pytest.raises(DtypeMismatch, match=f"{value} does not fit int64"):
        as_ids(np.array([1, value], np.uint64))
    assert as_ids(np.array([value], np.uint64).view(np.int64)).tolist() == [value - 2**64]


@pytest.mark.parametrize(
    "given",
    [[1.0], np.array([1.0], np.float16), torch.tensor([1.0]), ["a"], [None], [2**70], [True], np.array([1j])],
    ids=str,
)
def test_what_is_no_integer_is_refused(given: Any) -> None:
    with pytest.raises(DtypeMismatch, match="expected integers"):
        as_ids(given)


def test_a_ragged_list_is_refused() -> None:
    with pytest.raises(DtypeMismatch, match=r"no array of numbers.*inhomogeneous"):
        as_ids([[1], [1, 2]])
    with pytest.raises(DtypeMismatch, match=r"no array of numbers.*inhomogeneous"):
        as_rows([[1.0], [1.0, 2.0]], (2,), 2, "rows")


@pytest.mark.parametrize("given", [5, np.int64(5), np.array(5), torch.tensor(5)])
def test_one_id_without_a_dimension_stays_without(given: Any) -> None:
    assert as_ids(given).shape == ()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_of_every_width_and_byte_order_are_rows(dtype: Any) -> None:
    rows = as_rows(np.arange(6).astype(dtype).reshape(3, 2), (3,), 2, "rows")
    assert (rows.dtype, rows.dtype.isnative, rows.tolist()) == (np.float32, True, [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_width_are_rows_bfloat16_too(dtype: torch.dtype) -> None:
    rows = as_rows(torch.tensor([[1.5, -2.0]], dtype=dtype, requires_grad=True), (1,), 2, "rows")
    assert rows.tolist() == [[1.5, -2.0]]
    assert rows.dtype == np.float32


def test_rows_of_ids_of_any_shape_become_a_block() -> None:
    given = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert as_rows(given, (2, 3), 4, "rows").tolist() == given.reshape(6, 4).tolist()
    transposed = np.asfortranarray(given.reshape(6, 4))
    assert as_rows(transposed, (6,), 4, "rows").tolist() == given.reshape(6, 4).tolist()
    assert as_rows(np.ones(4, np.float32), (), 4, "rows").shape == (1, 4)
    assert as_rows(np.ones(4, np.float32), (1,), 4, "rows").shape == (1, 4)
    assert as_rows(np.ones((0, 4), np.float32), (0,), 4, "rows").shape == (0, 4)


@pytest.mark.parametrize(
    ("shape", "ids_shape", "error"),
    [
        ((3, 5), (3,), DimensionMismatch),
        ((4, 3), (3,), DimensionMismatch),
        ((12,), (3,), DimensionMismatch),
        ((), (1,), DimensionMismatch),
        ((2, 2), (1,), DimensionMismatch),
        ((2, 4), (3,), LengthMismatch),
        ((4, 4), (3,), LengthMismatch),
        ((0, 4), (1,), LengthMismatch),
        ((5,), (1,), LengthMismatch),
        ((2, 3, 4), (3,), LengthMismatch),
    ],
)
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...], ids_shape: tuple[int, ...], error: Any) -> None:
    with pytest.raises(error, match="gradients for table 't'"):
        as_rows(np.ones(shape, np.float32), ids_shape, 4, "gradients for table 't'")


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, object])
def test_rows_that_are_no_floats_are_refused(dtype: Any) -> None:
    with pytest.raises(DtypeMismatch, match="expected floats"):
        as_rows(np.ones((1, 4), dtype), (1,), 4, "rows")


def test_a_double_too_large_for_float32_becomes_infinite_without_a_warning() -> None:
    """The shard refuses it by name, as it does with fp16 on the wire."""
    assert np.isinf(as_rows(np.full((1, 4), 1e300), (1,), 4, "rows")).all()


def test_counts_are_as_many_as_ids_and_never_negative() -> None:
    assert as_counts([1, 2], (2,)).dtype == np.uint32
    assert as_counts(np.array([[1], [2]]), (2, 1)).tolist() == [1, 2]
    assert as_counts([2**40], (1,)).tolist() == [2**32 - 1], "the counter stops there anyway"
    for wrong in ([1.0, 2.0], [-1, 2]):
        with pytest.raises(DtypeMismatch, match="non-negative"):
            as_counts(wrong, (2,))
    with pytest.raises(LengthMismatch):
        as_counts([1], (2,))


def test_answers_speak_as_the_question_did() -> None:
    rows = np.ones((2, 4), np.float32)
    assert like(rows, np.arange(2)) is rows
    assert like(rows, [1, 2]) is rows
    tensor = like(rows, torch.arange(2))
    assert is_torch(tensor)
    rows[0, 0] = 7
    assert tensor[0, 0] == 7, "shares memory"
