"""Which tier a row belongs on: how many rows stay in RAM, and how many may go down at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence

SLICE_BYTES = 1 << 20
"""Copied on the engine thread in one go: half a millisecond."""
SLACK = 64
"""Nothing is done for an excess of less than 1/SLACK of the rows in RAM: small slices cost as much as large ones."""


def resident_rows(total: int, swap_fraction: float) -> int:
    """How many of a table's rows belong in RAM."""
    return total - int(total * swap_fraction)


def slice_rows(excess: int, resident: int, row_bytes: int, slice_bytes: int = SLICE_BYTES) -> int:
    """How many rows to move down now; 0 for none."""
    most = max(slice_bytes // row_bytes, 1)
    return min(excess, most) if excess > min(resident // SLACK, most) else 0


def shares(room: int, wanted: Sequence[int], held: Sequence[int]) -> list[int]:
    """Divides `room` bytes in proportion to what each wants; who holds more than that keeps it, and the others share
    what is left. All of it is given out if anything is wanted."""
    given = list(held)
    open_ = [i for i in range(len(wanted)) if wanted[i] > 0]
    while open_:
        rest = max(room - sum(given[i] for i in range(len(given)) if i not in open_), 0)
        total = sum(wanted[i] for i in open_)
        over = [i for i in open_ if rest * wanted[i] // total < held[i]]
        if not over:
            for i in open_:
                given[i] = rest * wanted[i] // total
            break
        open_ = [i for i in open_ if i not in over]
    return given
