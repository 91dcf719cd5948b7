"""`ps.kernels.rows.rows`, in numpy. Copies and integers: exact."""

from __future__ import annotations

import numpy as np

from ps.arrays import Ids, Rows, Slots
from ps.kernels.reference.rows.init import init_rows


def gather(rows_SW: Rows, slots_N: Slots, out_ND: Rows) -> None:
    """out[i] = the first D floats of slot slots[i]; a negative slot leaves out[i] as it is."""
    present = slots_N >= 0
    out_ND[present] = rows_SW[slots_N[present], : out_ND.shape[1]]


def gather_or_init(
    rows_SW: Rows, slots_N: Slots, ids_N: Ids, seed: np.uint64, kind: int, a: np.float32, b: np.float32, out_ND: Rows
) -> None:
    """Reads rows as `gather` does; a negative slot reads as the initial value of ids[i]."""
    init_rows(ids_N, seed, kind, a, b, out_ND)
    gather(rows_SW, slots_N, out_ND)


def scatter(rows_SW: Rows, slots_N: Slots, values_ND: Rows) -> None:
    """The first D floats of slot slots[i] = values[i], the last of equals; a negative slot is skipped."""
    for slot, value_D in zip(slots_N, values_ND, strict=True):
        if slot >= 0:
            rows_SW[slot, : len(value_D)] = value_D


def take(rows_MD: Rows, positions_N: Ids, out_ND: Rows) -> None:
    """out[i] = rows[positions[i]]."""
    out_ND[:] = rows_MD[positions_N]


def place(block_ND: Rows, positions_N: Ids, out_MD: Rows) -> None:
    """out[positions[i]] = block[i]; positions are unique."""
    out_MD[positions_N] = block_ND


def all_finite(flat_N: Rows) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(np.isfinite(flat_N).all())


def push_free(links_S: Ids, head: int, slots_N: Slots) -> int:
    """Stacks the slots that are not negative: links[s] = the one below s. Returns the new head."""
    pushed_N = slots_N[slots_N >= 0]
    links_S[pushed_N] = np.concatenate([[head], pushed_N])[:-1]
    return int(pushed_N[-1]) if len(pushed_N) else head


def pop_free(links_S: Ids, head: int, out_N: Slots) -> int:
    """out[i] = the slots on top of the stack, the topmost first. Returns the new head."""
    for i in range(len(out_N)):
        out_N[i], head = head, links_S[head]
    return int(head)
