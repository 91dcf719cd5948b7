"""Draws figures over time as SVG, as a Grafana panel shows them, for docs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from xml.sax.saxutils import escape

WIDTH, HEIGHT, COLUMNS = 470, 300, 2
"""Width and height of a chart in pixels, and the number of charts beside each other."""
LEFT, RIGHT, TOP, BOTTOM, LEGEND = 62, 22, 30, 92, 3
"""Pixels around the drawing, and the number of entries in a line of the legend."""
COLOURS = ("#1664c0", "#c2410c", "#15803d", "#7e22ce", "#b45309", "#0e7490", "#be185d", "#4d7c0f", "#64748b", "#111827")
PREFIXES = ("", "k", "M", "G", "T")
MOST = 9
"""The most series in a chart; beyond it the smallest are left out."""
LEAST_SHARE = 0.005
"""The least share of the largest value that a series must have in a stacked chart; a smaller layer could not be
seen."""


@dataclass(frozen=True)
class Series:
    """A name and its points (seconds, value); the seconds are the same in all series of a chart where both have any."""

    name: str
    points: Sequence[tuple[float, float]]

    @property
    def highest(self) -> float:
        """The largest value."""
        return max((value for _, value in self.points), default=0.0)


@dataclass(frozen=True)
class Chart:
    """Some series over the same time."""

    title: str
    unit: str
    series: Sequence[Series]
    stacked: bool = False


def shown(chart: Chart) -> list[Series]:
    """The series that can be seen; in a stacked chart the largest is at the bottom."""
    found = [one for one in chart.series if one.points]
    if not chart.stacked and len(found) <= MOST:
        return found
    largest = max((one.highest for one in found), default=0.0)
    return sorted((one for one in found if one.highest >= LEAST_SHARE * largest), key=lambda one: -one.highest)[:MOST]


def svg(charts: Sequence[Chart], marks: Sequence[tuple[float, str]] = ()) -> str:
    """Returns an SVG of all charts. `marks` are moments (seconds) with what happened."""
    rows = math.ceil(len(charts) / COLUMNS)
    seconds = [at for chart in charts for one in chart.series for at, _ in one.points] or [0.0]
    first, last = min(seconds), max(seconds)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH} {rows * HEIGHT}" '
        'font-family="sans-serif" font-size="11" fill="#222">',
        f'<rect width="{COLUMNS * WIDTH}" height="{rows * HEIGHT}" fill="#fff"/>',
    ]
    for number, chart in enumerate(charts):
        parts.append(f'<g transform="translate({number % COLUMNS * WIDTH},{number // COLUMNS * HEIGHT})">')
        parts += [*_Drawing(chart, first, last).parts(marks), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


class _Drawing:
    """One chart with its scales."""

    def __init__(self, chart: Chart, first: float, last: float) -> None:
        """Draws from `first` to `last`, in seconds."""
        self._chart = chart
        self._first, self._last = first, last
        self._series = shown(chart)
        self._seconds = sorted({at for one in self._series for at, _ in one.points})
        self._curves = self._pile() if chart.stacked else [dict(one.points) for one in self._series]
        self._step = _round_step(max((v for curve in self._curves for v in curve.values()), default=1.0) or 1.0)
        highest = max((v for curve in self._curves for v in curve.values()), default=1.0)
        self._ticks = max(1, math.ceil(highest / self._step - 1e-9))

    def _pile(self) -> list[dict[float, float]]:
        values = [[dict(one.points).get(at, 0.0) for one in self._series] for at in self._seconds]
        tops = [list(accumulate(column)) for column in values]
        return [{at: tops[i][s] for i, at in enumerate(self._seconds)} for s in range(len(self._series))]

    def _x(self, at: float) -> float:
        return LEFT + (at - self._first) / (self._last - self._first or 1.0) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / (self._step * self._ticks) * (HEIGHT - TOP - BOTTOM)

    def parts(self, marks: Sequence[tuple[float, str]]) -> Iterator[str]:
        """Returns the SVG elements."""
        yield _text((LEFT + WIDTH - RIGHT) / 2, 18, self._chart.title)
        for tick in range(self._ticks + 1):
            y = self._y(tick * self._step)
            yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            yield _text(LEFT - 6, y + 4, label(tick * self._step, self._chart.unit), "end")
        if not self._seconds:
            return
        yield from self._time(marks)
        for number in reversed(range(len(self._series))):
            yield self._curve(number)
        yield from self._legend()

    def _time(self, marks: Sequence[tuple[float, str]]) -> Iterator[str]:
        first, last = self._first, self._last
        step = _round_step(last - first or 1.0)
        for tick in range(int((last - first) / step) + 1):
            yield _text(self._x(first + tick * step), HEIGHT - BOTTOM + 15, f"{tick * step:g} s")
        for at, what in marks:
            if first <= at <= last:
                x = self._x(at)
                yield f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#888" stroke-dasharray="3 3"/>'
                yield _text(x + 4, TOP + 9, what, "start", "#555")

    def _curve(self, number: int) -> str:
        curve, colour = self._curves[number], COLOURS[number % len(COLOURS)]
        line = " ".join(f"{self._x(at):.1f},{self._y(value):.1f}" for at, value in sorted(curve.items()))
        if not self._chart.stacked:
            return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        bottom = f"{self._x(self._seconds[-1]):.1f},{self._y(0):.1f} {self._x(self._seconds[0]):.1f},{self._y(0):.1f}"
        return f'<polygon points="{line} {bottom}" fill="{colour}"/>'

    def _legend(self) -> Iterator[str]:
        each = (WIDTH - 24) / LEGEND
        for number, one in enumerate(self._series):
            x, y = 12 + number % LEGEND * each, HEIGHT - BOTTOM + 36 + number // LEGEND * 16
            yield f'<rect x="{x:.1f}" y="{y - 8:.1f}" width="9" height="9" fill="{COLOURS[number % len(COLOURS)]}"/>'
            yield _text(x + 13, y, one.name, "start")


def label(value: float, unit: str) -> str:
    """Formats a value with its unit: 1500 and "Bps" are 1.5 kB/s."""
    ending = {"bytes": "B", "Bps": "B/s", "s": "s", "percentunit": "%"}.get(unit, "")
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    power = 0
    while value >= 1000 and power < len(PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {PREFIXES[power]}{ending}".strip()


def _round_step(highest: float) -> float:
    """Returns a step of 1, 2 or 5 times a power of ten, so that there are three to six steps."""
    power = 10.0 ** math.floor(math.log10(highest / 3))
    return next(power * factor for factor in (1, 2, 5, 10) if highest / (power * factor) <= 6)


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
