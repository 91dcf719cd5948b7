"""Counts the bytes that the dense part's exchange has sent."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class DenseStats:
    """Bytes that this rank has sent, summed over steps, with headers and padding.

    Counted as a ring of ranks sends them: W - 1 times its payload for an all-gather among W ranks, 2 (W - 1) / W times
    the buffer for an all-reduce. The framing of TCP and of the library is not counted.
    """

    steps: int = 0
    steps_not_finite: int = 0
    """Steps in which a gradient was NaN or infinite: these are exchanged whole, and residuals stay as they are."""
    position_bytes: float = 0.0
    value_bytes: float = 0.0
    header_bytes: float = 0.0
    """Bytes of sizes, headers, and padding to the longest payload among the ranks."""
    all_reduce_bytes: float = 0.0
    """Bytes of steps and layers that are sent whole."""
    dense_bytes: float = 0.0
    """Bytes that plain DDP would have sent."""
    elements_sent: int = 0
    elements: int = 0
    threshold_estimates: int = 0

    @property
    def sent_bytes(self) -> float:
        """All bytes that were sent."""
        return self.position_bytes + self.value_bytes + self.header_bytes + self.all_reduce_bytes

    @property
    def factor(self) -> float:
        """How many times more bytes plain DDP would have sent; 1 where nothing had to be sent at all."""
        return self.dense_bytes / self.sent_bytes if self.sent_bytes else 1.0

    def since(self, earlier: DenseStats) -> DenseStats:
        """Returns what was counted since `earlier`, a copy that was taken then."""
        before = asdict(earlier)
        return DenseStats(**{name: value - before[name] for name, value in asdict(self).items()})
