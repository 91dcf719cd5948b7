"""`ps.kernels.rows.half`, in numpy: neighbours, and how far a number is from the lower one. Exact to the bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Ids, Rows, Slots
from ps.kernels.reference.index.hashing import mix64
from ps.kernels.rows.half import SALT, Halves

Fractions = npt.NDArray[np.float64]
Up = Callable[[Fractions, Halves], Flags]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def widen(half_SW: Halves, slots_N: Slots, out_NW: Rows, half: int, brain: int) -> None:
    """out[i] = the row in slot slots[i]: binary16, then bfloat16, then float32; a negative slot is left out."""
    here_N = slots_N >= 0
    given_NI = half_SW[slots_N[here_N]]
    both = half + brain
    out_NW[here_N, :half] = given_NI[:, :half].view(np.float16)
    out_NW[here_N, half:both] = _from_brain(given_NI[:, half:both])
    words = given_NI[:, both : both + 2 * (out_NW.shape[1] - both)]
    out_NW[here_N, both:] = np.ascontiguousarray(words).view(np.float32)


def gather_half(half_SW: Halves, slots_N: Slots, out_ND: Rows) -> None:
    """out[i] = the first D items of the row in slot slots[i]; a negative slot leaves out[i] as it is."""
    here_N = slots_N >= 0
    out_ND[here_N] = half_SW[slots_N[here_N], : out_ND.shape[1]].view(np.float16)


def narrow(rows_NW: Rows, slots_N: Slots, half_SW: Halves, half: int, brain: int) -> int:
    """Rounds up where the fraction is more than a half, or a half and the lower neighbour odd; negative slots not."""

    def up(fraction: Fractions, lower: Halves) -> Flags:
        ups: Flags = (fraction > 0.5) | ((fraction == 0.5) & (lower % 2 == 1))
        return ups

    here_N = slots_N >= 0
    _write(half_SW, slots_N[here_N], rows_NW[here_N], half, brain, up, up)
    return _clamped(rows_NW[here_N, :half])


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
    """Rounds up where the fraction is more than u: bits 8..31 and 40..63 of the numbers of SplitMix64, in turn."""
    here_N = slots_N >= 0
    stream = mix64(np.array([seed ^ mix64(np.array([push ^ SALT]))[0]]))
    keys_N = mix64(stream ^ mix64(ids_N[here_N].view(np.uint64)))
    pairs = (half + brain + 1) // 2
    numbers = mix64(keys_N[:, None] + np.arange(1, pairs + 1, dtype=np.uint64) * _GOLDEN)
    words = np.stack([numbers & np.uint64(0xFFFFFFFF), numbers >> np.uint64(32)], axis=2).reshape(
        len(keys_N), 2 * pairs
    )
    u = (words >> np.uint64(8)).astype(np.float64) / 2**24

    u_half, u_brain = u[:, :half], u[:, half : half + brain]
    rows_NW, slots_N = rows_NW[here_N], slots_N[here_N]
    _write(half_SW, slots_N, rows_NW, half, brain, lambda f, _: f > u_half, lambda f, _: f > u_brain)
    return _clamped(rows_NW[:, :half])


def _clamped(value_NH: Rows) -> int:
    """Rows that are finite and have a magnitude beyond 65504."""
    return int((np.isfinite(value_NH).all(axis=1) & (np.abs(value_NH) > 65504).any(axis=1)).sum())


def _write(half_SW: Halves, slots_N: Slots, rows_NW: Rows, half: int, brain: int, up_half: Up, up_brain: Up) -> None:
    """`up(fraction, lower)` tells whether the upper neighbour is taken, both counted from zero on."""
    both = half + brain
    values, states = rows_NW[:, :half], np.ascontiguousarray(rows_NW[:, half:both])
    largest = np.float16(65504)
    magnitude = np.minimum(np.abs(values), np.float32(largest))
    nearest = magnitude.astype(np.float16)
    lower = np.where(nearest > magnitude, np.nextafter(nearest, np.float16(0)), nearest)
    upper = np.where(lower < largest, np.nextafter(lower, np.float16(np.inf)), lower)
    gap = np.maximum(upper.astype(np.float64) - lower, 2.0**-24)
    taken = np.where(up_half((magnitude - lower.astype(np.float64)) / gap, lower.view(np.uint16)), upper, lower)
    signed = np.where(np.isfinite(values), np.copysign(taken, values), values).astype(np.float16)
    half_SW[slots_N, :half] = np.where(np.isnan(values), _sign(values) | 0x7E00, signed.view(np.uint16))

    bits = states.view(np.uint32) & np.uint32(0x7FFFFFFF)
    low = (bits >> np.uint32(16)).astype(np.uint16)
    rounded = np.minimum(low + up_brain((bits & np.uint32(0xFFFF)) / 65536.0, low), 0x7F7F)
    special = np.where(np.isnan(states), 0x7FC0, 0x7F80)
    half_SW[slots_N, half:both] = np.where(np.isfinite(states), rounded, special) | _sign(states)

    words = np.ascontiguousarray(rows_NW[:, both:]).view(np.uint16)
    half_SW[slots_N, both : both + words.shape[1]] = words


def _sign(values: Rows) -> Halves:
    return np.signbit(values).astype(np.uint16) << np.uint16(15)


def _from_brain(items: Halves) -> Rows:
    return (items.astype(np.uint32) << np.uint32(16)).view(np.float32)
