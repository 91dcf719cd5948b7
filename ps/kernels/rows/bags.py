"""Bags of rows: their sums, and the gradients of those on their way back; and the numbers that say which rows they are.

A structure of R bags over U rows is starts int64 [R + 1] and positions int32 [P]: bag i has the rows
positions[starts[i]:starts[i + 1]], each as often as it stands there.
"""

from __future__ import annotations

import numpy as np

from ps.arrays import BagPositions, Flags, Rows, Starts, Words
from ps.kernels.kernel import kernel


@kernel()
def pool(rows_UD: Rows, starts_K: Starts, positions_P: BagPositions, out_RD: Rows) -> None:
    """out[i] = the sum of bag i's rows, in their order. starts: [R + 1], of any R bags that follow each other."""
    for i in range(len(starts_K) - 1):
        for j in range(out_RD.shape[1]):
            out_RD[i, j] = np.float32(0)
        for at in range(starts_K[i], starts_K[i + 1]):
            row = positions_P[at]
            for j in range(out_RD.shape[1]):
                out_RD[i, j] += rows_UD[row, j]


@kernel(either="grads_RD")
def spread(
    grads_RD: Rows, starts_K: Starts, positions_P: BagPositions, bags_R: Starts, out_UD: Rows, used_U: Flags
) -> None:
    """out[p] += grads[i] for every row p of bag bags[i], in the order of i; used[p] is set. Bags are of `starts`."""
    for i in range(len(bags_R)):
        for at in range(starts_K[bags_R[i]], starts_K[bags_R[i] + 1]):
            row = positions_P[at]
            used_U[row] = True
            for j in range(out_UD.shape[1]):
                out_UD[row, j] += grads_RD[i, j]


@kernel()
def add_at(part_RD: Rows, bags_R: Starts, out_BD: Rows) -> None:
    """out[bags[i]] += part[i]."""
    for i in range(len(bags_R)):
        for j in range(out_BD.shape[1]):
            out_BD[bags_R[i], j] += part_RD[i, j]


@kernel()
def put_numbers(numbers_N: Starts, width: int, words: Words) -> None:
    """Number i, below 2**width, at bit i * width of words, which are zero and one more than those bits need.
    width is in [1, 32]."""
    for i in range(len(numbers_N)):
        bit = i * width
        at, shift = bit >> 6, np.uint64(bit & 63)
        number = np.uint64(numbers_N[i])
        words[at] |= number << shift
        if (bit & 63) + width > 64:
            words[at + 1] |= number >> (np.uint64(64) - shift)


@kernel()
def get_numbers(words: Words, width: int, out_N: Starts | BagPositions) -> int:
    """What `put_numbers` has put there; the largest of them, -1 of none."""
    mask, largest = (np.uint64(1) << np.uint64(width)) - np.uint64(1), np.int64(-1)
    for i in range(len(out_N)):
        bit = i * width
        at, shift = bit >> 6, np.uint64(bit & 63)
        number = words[at] >> shift
        if (bit & 63) + width > 64:
            number |= words[at + 1] << (np.uint64(64) - shift)
        value = np.int64(number & mask)
        out_N[i] = value
        largest = max(largest, value)
    return int(largest)
