"""Bags of rows, in plain numpy."""

from __future__ import annotations

import numpy as np

from ps.arrays import BagPositions, Flags, Rows, Starts, Words


def pool(rows_UD: Rows, starts_K: Starts, positions_P: BagPositions, out_RD: Rows) -> None:
    """out[i] = the sum of bag i's rows, in their order."""
    for i in range(len(starts_K) - 1):
        out_RD[i] = 0
        for row in positions_P[starts_K[i] : starts_K[i + 1]]:
            out_RD[i] += rows_UD[row]


def spread(
    grads_RD: Rows, starts_K: Starts, positions_P: BagPositions, bags_R: Starts, out_UD: Rows, used_U: Flags
) -> None:
    """out[p] += grads[i] for every row p of bag bags[i]; used[p] is set."""
    for bag, grad_D in zip(bags_R, grads_RD, strict=True):
        rows_N = positions_P[starts_K[bag] : starts_K[bag + 1]]
        np.add.at(out_UD, rows_N, grad_D)
        used_U[rows_N] = True


def add_at(part_RD: Rows, bags_R: Starts, out_BD: Rows) -> None:
    """out[bags[i]] += part[i]."""
    np.add.at(out_BD, bags_R, part_RD)


def put_numbers(numbers_N: Starts, width: int, words: Words) -> None:
    """Number i at bit i * width of words."""
    bits_NW = numbers_N[:, None] >> np.arange(width) & 1
    flags_N = np.zeros(len(words) * 64, np.bool_)
    flags_N[: bits_NW.size] = bits_NW.reshape(-1)
    words[:] = np.packbits(flags_N, bitorder="little").view(np.uint64)


def get_numbers(words: Words, width: int, out_N: Starts | BagPositions) -> int:
    """What `put_numbers` has put there; the largest of them, -1 of none."""
    flags_N = np.unpackbits(words.view(np.uint8), bitorder="little")[: len(out_N) * width]
    out_N[:] = flags_N.reshape(-1, width).astype(np.int64) @ (1 << np.arange(width))
    return int(out_N.max(initial=-1))
