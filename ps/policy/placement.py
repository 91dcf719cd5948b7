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


def shares(room: int, wanted: Sequence[int]) -> list[int]:
    """Divides `room` bytes in proportion to what each wants."""
    total = sum(wanted)
    return [room * each // total for each in wanted] if total else [0] * len(wanted)
