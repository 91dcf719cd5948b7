"""Draws panels of points over a logarithmic axis, side by side in an SVG."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Figures = dict[str, dict[str, float]]
"""Figures by case and metric."""


@dataclass(frozen=True)
class Frame:
    """The size in pixels of every panel of a plot, and the room beside what is drawn."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    def svg(self, parts: Sequence[str], panels: int) -> str:
        """Returns an SVG of the panels, side by side."""
        begin = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {panels * self.width} {self.height}" '
            'font-family="sans-serif" font-size="11" fill="#222">',
            f'<rect width="{panels * self.width}" height="{self.height}" fill="#fff"/>',
        ]
        return "\n".join([*begin, *parts, "</svg>\n"])


@dataclass(frozen=True)
class Panel:
    """The panel in which the figures of one stream are drawn: log2 of a factor to the right, a figure up."""

    frame: Frame
    x0: int
    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, factor: float) -> float:
        """Returns the place of a factor in pixels from the left."""
        share = (math.log2(factor) - self.low_x) / (self.high_x - self.low_x)
        return self.x0 + self.frame.left + share * (self.frame.width - self.frame.left - self.frame.right)

    def y(self, figure: float) -> float:
        """Returns the place of a figure in pixels from the top."""
        frame, share = self.frame, (figure - self.low_y) / (self.high_y - self.low_y)
        return frame.height - frame.bottom - share * (frame.height - frame.top - frame.bottom)

    def axes(self, above: str, below: str, step: float, label: Callable[[float], str]) -> list[str]:
        """Draws titles and lines: across at every step, up at every power of two."""
        frame = self.frame
        left, right = self.x0 + frame.left, self.x0 + frame.width - frame.right
        middle = (left + right) / 2
        parts = [text(middle, 20, above), text(middle, frame.height - 10, below)]
        for count in range(round((self.high_y - self.low_y) / step) + 1):
            figure = self.low_y + step * count
            y = self.y(figure)
            parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="{"#888" if abs(figure) < 1e-9 else "#ddd"}"/>')
            parts.append(text(left - 6, y + 4, label(figure), "end"))
        for power in range(int(self.low_x), int(self.high_x) + 1):
            x = self.x(2.0**power)
            parts.append(f'<path d="M{x:.1f} {frame.top}V{frame.height - frame.bottom}" stroke="#eee"/>')
            parts.append(text(x, frame.height - frame.bottom + 16, f"{2**power}x"))
        return parts


def read(lines: Iterable[str], bench: str) -> Figures:
    """Reads the figures of one benchmark from JSON lines."""
    found: Figures = defaultdict(dict)
    for line in lines:
        figure = json.loads(line)
        if figure["bench"] == bench:
            found[figure["case"]][figure["metric"]] = figure["value"]
    return found


def dot(x: float, y: float, colour: str) -> str:
    """Draws a point."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'


def text(x: float, y: float, words: str, anchor: str = "middle", colour: str = "#222") -> str:
    """Draws a label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'
