"""Moving rows between an arena, a batch and the wire. Rows are [S, W] with the value in the first D floats."""

from __future__ import annotations

import numpy as np

from ps.arrays import Ids, Rows, Slots
from ps.kernels.kernel import kernel
from ps.kernels.prefetch import prefetch_row
from ps.kernels.rows.init import init_row, row_key

CHECK_BLOCK = 4096
"""Elements that `all_finite` looks at before it may stop early."""

_WITHOUT_SIGN, _INFINITY = np.int32(0x7FFFFFFF), np.int32(0x7F800000)


@kernel()
def gather(rows_SW: Rows, slots_N: Slots, out_ND: Rows) -> None:
    """out[i] = the value in slot slots[i]; slot -1 leaves out[i] as it is."""
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, out_ND.shape[1])
        s = slots_N[i]
        if s >= 0:
            for j in range(out_ND.shape[1]):
                out_ND[i, j] = rows_SW[s, j]


@kernel(either="ids_N")
def gather_or_init(
    rows_SW: Rows, slots_N: Slots, ids_N: Ids, seed: np.uint64, kind: int, a: np.float32, b: np.float32, out_ND: Rows
) -> None:
    """Reads rows as `gather` does; slot -1 reads as the initial value of ids[i]."""
    gather(rows_SW, slots_N, out_ND)
    for i in range(len(slots_N)):  # a pass of its own: inside the first one it costs every row a fifth of its speed
        if slots_N[i] < 0:
            init_row(row_key(seed, ids_N[i]), kind, a, b, out_ND[i])


@kernel(either="values_ND")
def scatter(rows_SW: Rows, slots_N: Slots, values_ND: Rows) -> None:
    """The first D floats of slot slots[i] = values[i]; slot -1 is skipped."""
    for i in range(len(slots_N)):
        s = slots_N[i]
        if s >= 0:
            for j in range(values_ND.shape[1]):
                rows_SW[s, j] = values_ND[i, j]


@kernel(either="rows_MD")
def take(rows_MD: Rows, positions_N: Ids, out_ND: Rows) -> None:
    """out[i] = rows[positions[i]]."""
    for i in range(len(positions_N)):
        p = positions_N[i]
        for j in range(rows_MD.shape[1]):
            out_ND[i, j] = rows_MD[p, j]


@kernel(either="block_ND")
def place(block_ND: Rows, positions_N: Ids, out_MD: Rows) -> None:
    """out[positions[i]] = block[i]."""
    for i in range(len(positions_N)):
        p = positions_N[i]
        for j in range(block_ND.shape[1]):
            out_MD[p, j] = block_ND[i, j]


@kernel(either="flat_N")
def all_finite(flat_N: Rows) -> bool:
    """Whether no element of a contiguous float32 [n] is NaN or infinite: no exponent has all its bits set (IEEE 754).

    On the bits, without the sign: the largest of integers may be found in any order, and so vectorises. Of int32: the
    same in uint32 made a third of the speed.
    """
    bits_N = flat_N.view(np.int32)
    for start in range(0, len(bits_N), CHECK_BLOCK):
        block = bits_N[start : start + CHECK_BLOCK]
        largest = np.int32(0)
        for i in range(len(block)):
            largest = max(largest, block[i] & _WITHOUT_SIGN)
        if largest >= _INFINITY:
            return False
    return True


@kernel()
def push_free(links_S: Ids, head: int, slots_N: Slots) -> int:
    """Puts slots on a stack that lies in the free slots themselves: links[s] = the one below s. Negative slots are
    skipped. Returns the new head."""
    for i in range(len(slots_N)):
        if slots_N[i] >= 0:
            links_S[slots_N[i]] = head
            head = slots_N[i]
    return head


@kernel()
def pop_free(links_S: Ids, head: int, out_N: Slots) -> int:
    """out[i] = the slots on top of the stack, the topmost first. Returns the new head; the stack is not written to."""
    for i in range(len(out_N)):
        out_N[i] = head
        head = links_S[head]
    return head
