"""The row layout, shared by every tier."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RowLayout:
    """A row is its value and, side by side with it, the optimizer's state: float32 [dim + state_width]."""

    dim: int
    state_width: int

    @property
    def width(self) -> int:
        """Floats of a row."""
        return self.dim + self.state_width

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * 4
