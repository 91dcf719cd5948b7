"""What the dense part's exchange has sent."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class DenseStats:
    """Bytes that this rank put on the wire, summed over steps, headers and padding included.

    As rings send them: W - 1 times its payload for an all-gather among W ranks, 2 (W - 1) / W times the buffer for an
    all-reduce. TCP's and the library's own framing is not known here.
    """

    steps: int = 0
    steps_not_finite: int = 0
    """Steps in which a gradient was NaN or infinite: they are exchanged whole, with nothing held back or let go."""
    position_bytes: float = 0.0
    value_bytes: float = 0.0
    header_bytes: float = 0.0
    """Sizes and headers, and the padding to the longest payload among the ranks."""
    all_reduce_bytes: float = 0.0
    """Bytes of steps and layers that are sent whole."""
    dense_bytes: float = 0.0
    """What plain DDP would have sent."""
    elements_sent: int = 0
    elements: int = 0
    threshold_estimates: int = 0

    @property
    def sent_bytes(self) -> float:
        """All that was sent."""
        return self.position_bytes + self.value_bytes + self.header_bytes + self.all_reduce_bytes

    @property
    def factor(self) -> float:
        """How many times fewer bytes than plain DDP; 1 where nothing had to be sent at all."""
        return self.dense_bytes / self.sent_bytes if self.sent_bytes else 1.0

    def since(self, earlier: DenseStats) -> DenseStats:
        """Returns what was counted after a copy that was taken earlier."""
        before = asdict(earlier)
        return DenseStats(**{name: value - before[name] for name, value in asdict(self).items()})
