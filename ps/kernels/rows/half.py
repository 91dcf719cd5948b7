"""Cold rows: 16 bits an element, widened to float32 for arithmetic and rounded back at random.

A row in a cold arena is uint16 [items], in three parts, `half` and `brain` being the lengths of the first two:

    half elements    IEEE binary16: 11 significant bits, 6e-8 to 65504. The value
    brain elements   bfloat16: 8 significant bits, the range of float32. State, be it a tiny gradient's square
    the rest         float32 as it is, two items each, the low half first. State of which a row has one number

Widening is exact. Rounding never makes a finite number infinite: it stops at the largest finite one. Infinity and NaN
stay what they are, a NaN as the quiet one without payload.

Stochastic rounding goes away from zero with a probability that is the fraction lost otherwise. So steps too small to be
seen one by one add up in the mean, where rounding to nearest would lose all of them. Its random numbers are a pure
function of (seed, push, id, j), j being the element in the row: neither the order of a batch nor the slot matters. The
stream of a row is SplitMix64 (Steele, Lea and Flood 2014); each 64-bit number serves two elements, the low half first.

The loops over elements are integer arithmetic without branches, which is vectorised. numba adds two int32 to an int64:
hence the casts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids, Rows, Slots
from ps.kernels.bits import float_bits
from ps.kernels.index.hashing import mix64
from ps.kernels.kernel import helper, kernel
from ps.kernels.prefetch import prefetch_half_row
from ps.kernels.rows.init import row_key

Halves = npt.NDArray[np.uint16]
Bits = npt.NDArray[np.int32]

SALT = np.uint64(0xD1B54A32D192ED03)
"""Keeps the stream of an id at a push apart from that of its initial value."""

I32 = np.int32
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MAGNITUDE, _INFINITY = I32(0x7FFFFFFF), I32(0x7F800000)
_LOW16, _SIGN16, _MAGNITUDE16 = I32(0xFFFF), I32(0x8000), I32(0x7FFF)
_LOST, _LOST_BRAIN = I32(0x1FFF), I32(0xFFFF)  # the bits of a float32 that do not fit
_HALF_INFINITY, _HALF_LARGEST, _HALF_NAN = I32(0x7C00), I32(0x7BFF), I32(0x7E00)
_BRAIN_INFINITY, _BRAIN_LARGEST, _BRAIN_NAN = I32(0x7F80), I32(0x7F7F), I32(0x7FC0)
_REBIAS = I32(112 << 23)  # the exponent of a float32 is biased by 127, that of a binary16 by 15
_SMALLEST_NORMAL, _SMALLEST_NORMAL_BITS = np.float32(2.0**-14), I32(0x38800000)
_QUANTUM, _QUANTA = np.float32(2.0**-24), np.float32(2.0**24)  # subnormal binary16 are multiples of 2**-24
_UNIFORM_BITS, _TIE = I32(0xFFFFFF), I32(0x800000)
_S8, _S11, _S13, _S16 = I32(8), I32(11), I32(13), I32(16)
_ZERO, _ONE = I32(0), I32(1)
_HALF_LARGEST_BITS = I32(0x477FE000)  # 65504 as float32


@helper(error_model="numpy")
def _wide(item: np.uint16) -> np.int32:
    """The bits of the float32 that is equal to a binary16."""
    magnitude = I32(I32(item) & _MAGNITUDE16)
    shifted = I32(magnitude << _S13)
    wide = I32(shifted | _INFINITY) if magnitude >= _HALF_INFINITY else I32(shifted + _REBIAS)
    wide = float_bits(np.float32(magnitude) * _QUANTUM) if magnitude < I32(0x400) else wide  # subnormal
    return I32(wide | I32(I32(I32(item) & _SIGN16) << _S16))


@kernel(error_model="numpy", either="half_SW")
def widen(half_SW: Halves, slots_N: Slots, out_NW: Rows, half: int, brain: int) -> None:
    """out[i] = the row in slot slots[i], exactly; slot -1 leaves out[i] as it is. W = half + brain + the rest."""
    bits_NW = out_NW.view(np.int32)
    both = half + brain
    items = both + 2 * (out_NW.shape[1] - both)
    for i in range(len(slots_N)):
        prefetch_half_row(half_SW, slots_N, i, items)
        s = slots_N[i]
        if s >= 0:
            row, bits_W = half_SW[s], bits_NW[i]
            for j in range(half):
                bits_W[j] = _wide(row[j])
            brain_B, bits_B = row[half:both], bits_W[half:both]
            for j in range(brain):
                bits_B[j] = I32(I32(brain_B[j]) << _S16)
            words, bits_F = row[both:], bits_W[both:]
            for j in range(len(bits_F)):
                bits_F[j] = I32(I32(words[2 * j]) | I32(I32(words[2 * j + 1]) << _S16))


@kernel(error_model="numpy")
def gather_half(half_SW: Halves, slots_N: Slots, out_ND: Rows) -> None:
    """out[i] = the value in slot slots[i], its first D items; slot -1 leaves out[i] as it is. As `rows.gather`."""
    widen(half_SW, slots_N, out_ND, out_ND.shape[1], 0)


@helper(error_model="numpy")
def _signed(bits: np.int32, rounded: np.int32, largest: np.int32, infinity: np.int32, nan: np.int32) -> np.uint16:
    """The 16 bits of the float32 `bits`, whose magnitude was rounded, if it is finite, to `rounded`."""
    magnitude = I32(bits & _MAGNITUDE)
    special = nan if magnitude > _INFINITY else infinity
    chosen = special if magnitude >= _INFINITY else min(rounded, largest)
    return np.uint16(I32(chosen | I32(I32(bits >> _S16) & _SIGN16)))


@helper(error_model="numpy")
def _half(value: np.float32, bits: np.int32, u: np.int32) -> np.uint16:
    """Binary16 of a float32 and its bits: away from zero if the fraction lost is more than u / 2**24."""
    magnitude = I32(bits & _MAGNITUDE)
    normal = I32(I32(I32(magnitude + _LOST) - I32(u >> _S11)) - _REBIAS) >> _S13
    quanta = min(abs(value), _SMALLEST_NORMAL) * _QUANTA
    whole = I32(quanta)
    more = _ONE if (quanta - np.float32(whole)) * _QUANTA > np.float32(u) else _ZERO
    rounded = I32(whole + more) if magnitude < _SMALLEST_NORMAL_BITS else I32(normal)
    item: np.uint16 = _signed(bits, rounded, _HALF_LARGEST, _HALF_INFINITY, _HALF_NAN)
    return item


@helper(error_model="numpy")
def _brain(bits: np.int32, u: np.int32) -> np.uint16:
    """Rounds a float32 at random to bfloat16, which is its upper half."""
    rounded = I32(I32(I32(bits & _MAGNITUDE) + _LOST_BRAIN) - I32(u >> _S8)) >> _S16
    item: np.uint16 = _signed(bits, I32(rounded), _BRAIN_LARGEST, _BRAIN_INFINITY, _BRAIN_NAN)
    return item


@helper(error_model="numpy")
def _copy_words(bits_F: Bits, words: Halves) -> None:
    for j in range(len(bits_F)):
        words[2 * j] = np.uint16(I32(bits_F[j] & _LOW16))
        words[2 * j + 1] = np.uint16(I32(I32(bits_F[j] >> _S16) & _LOW16))


@kernel(error_model="numpy", either="rows_NW")
def narrow(rows_NW: Rows, slots_N: Slots, half_SW: Halves, half: int, brain: int) -> int:
    """The row in slot slots[i] = rows[i], rounded to nearest, ties to even; slot -1 is skipped. How many rows had a
    finite number beyond the largest binary16, which it is now."""
    bits_NW = rows_NW.view(np.int32)
    both, clamped = half + brain, 0
    for i in range(len(slots_N)):
        s = slots_N[i]
        if s >= 0:
            row, value_W, bits_W = half_SW[s], rows_NW[i], bits_NW[i]
            half_H, brain_B = row[:half], row[half:both]
            largest = _ZERO
            for j in range(len(half_H)):
                largest = max(largest, I32(bits_W[j] & _MAGNITUDE))
                small = I32(min(abs(value_W[j]), _SMALLEST_NORMAL) * _QUANTA)
                odd = I32(I32(I32(bits_W[j] >> _S13) & _ONE) << _S11)
                odd = I32(small & _ONE) if I32(bits_W[j] & _MAGNITUDE) < _SMALLEST_NORMAL_BITS else odd
                half_H[j] = _half(value_W[j], bits_W[j], I32(_TIE - odd))
            clamped += int(largest > _HALF_LARGEST_BITS and largest < _INFINITY)
            given_B = bits_W[half:both]
            for j in range(len(brain_B)):
                odd = I32(I32(I32(given_B[j] >> _S16) & _ONE) << _S8)
                brain_B[j] = _brain(given_B[j], I32(_TIE - odd))
            _copy_words(bits_W[both:], row[both:])
    return clamped


@kernel(error_model="numpy")
def narrow_stochastic(
    rows_NW: Rows,
    slots_N: Slots,
    half_SW: Halves,
    half: int,
    brain: int,
    seed: np.uint64,
    push: np.uint64,
    ids_N: Ids,
) -> int:
    """The row in slot slots[i] = rows[i], rounded stochastically; slot -1 is skipped. Returned as by `narrow`.

    Element j, in [0, half + brain), rounds away from zero if the fraction lost is more than u, the upper 24 bits of
    32 random ones. What is representable loses nothing and stays.
    """
    bits_NW = rows_NW.view(np.int32)
    both, clamped = half + brain, 0
    numbers_P = np.empty((both + 1) // 2, np.uint64)
    random_W = numbers_P.view(np.int32)
    stream = mix64(seed ^ mix64(push ^ SALT))
    for i in range(len(slots_N)):
        s = slots_N[i]
        if s >= 0:
            key = row_key(stream, ids_N[i])
            for p in range(len(numbers_P)):
                numbers_P[p] = mix64(key + np.uint64(p + 1) * _GOLDEN)
            row, value_W, bits_W = half_SW[s], rows_NW[i], bits_NW[i]
            half_H, brain_B = row[:half], row[half:both]
            largest = _ZERO
            for j in range(len(half_H)):
                largest = max(largest, I32(bits_W[j] & _MAGNITUDE))
                half_H[j] = _half(value_W[j], bits_W[j], I32(I32(random_W[j] >> _S8) & _UNIFORM_BITS))
            clamped += int(largest > _HALF_LARGEST_BITS and largest < _INFINITY)
            given_B, random_B = bits_W[half:both], random_W[half:both]
            for j in range(len(brain_B)):
                brain_B[j] = _brain(given_B[j], I32(I32(random_B[j] >> _S8) & _UNIFORM_BITS))
            _copy_words(bits_W[both:], row[both:])
    return clamped
