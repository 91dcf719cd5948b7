"""Draws the figures of `ttquality` as a plot (SVG) and as a table (Markdown, on stdout).

python -m benchmarks ttquality --json > figures.jsonl
python -m benchmarks.tensor_train.plot figures.jsonl docs/img/ttquality.svg
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.panel import Figures, Frame, Panel, dot, read, text
from benchmarks.tensor_train.cases import RANKS, WAYS

CORES = "#1664c0"
OTHERS = {
    "rank8_hot": ("rank 8 and hot rows", "#0f9d8f"),
    "hashed": ("hashed", "#c2410c"),
    "evicted": ("evicted", "#7c3aed"),
    "short": ("short rows", "#a16207"),
    "fp16": ("fp16", "#52525b"),
}
"""How the name of a case begins -> what it means, and its colour."""
FRAME = Frame(width=300, height=430, left=50, right=14, top=34, bottom=136)
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
LINES = 8
"""The most lines across a panel."""


def streams(figures: Figures) -> list[str]:
    """Returns the streams that there are figures of."""
    return [case.removesuffix("_whole") for case in figures if case.endswith("_whole")]


def table(figures: Figures) -> str:
    """Writes the table as Markdown: a column for each stream."""
    found = streams(figures)
    whole = [figures[f"{stream}_whole"] for stream in found]
    lines = [
        _line("", found),
        "|" + "---|" * (1 + len(found)),
        _line("whole: AUC", [f"{of['auc']:.4f}" for of in whole]),
        _line("seed noise", [f"{of['seed_noise']:.4f}" for of in whole]),
    ]
    lines += [_line(f"`{case}`", [_cell(figures[f"{stream}_{case}"]) for stream in found]) for case in WAYS]
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str]) -> str:
    return "| " + " | ".join([name, *cells]) + " |"


def _cell(of: dict[str, float]) -> str:
    least, most = of["auc_difference_least"], of["auc_difference_most"]
    return f"{of['auc_difference']:+.4f} ({least:+.4f} to {most:+.4f}), {of['compression']:.1f}x"


def svg(figures: Figures) -> str:
    """Draws the streams side by side."""
    parts: list[str] = []
    found = streams(figures)
    for number, stream in enumerate(found):
        parts += _stream(figures, stream, number * FRAME.width)
    return FRAME.svg(parts, len(found))


def _stream(figures: Figures, stream: str, x0: int) -> list[str]:
    points = {case: figures[f"{stream}_{case}"] for case in WAYS}
    lowest = min(0, *(point["auc_difference_least"] for point in points.values()))
    highest = max(0, *(point["auc_difference_most"] for point in points.values()))
    step = next((step for step in STEPS if (highest - lowest) / step < LINES - 2), STEPS[-1])
    panel = Panel(
        FRAME,
        x0,
        math.floor(math.log2(min(point["compression"] for point in points.values()))),
        math.ceil(math.log2(max(point["compression"] for point in points.values()))),
        step * math.floor(lowest / step),
        step * math.ceil(highest / step),
    )
    parts = panel.axes(f"{stream}: difference in AUC", "compression of the large tables", step, "{:.3f}".format)
    parts += _ranks(panel, [points[f"rank{rank}"] for rank in RANKS])
    parts += [part for case in WAYS if case not in _CORES for part in _point(panel, points[case], _colour(case))]
    for number, (meaning, colour) in enumerate([("cores alone, by rank", CORES), *OTHERS.values()]):
        y = FRAME.height - FRAME.bottom + 36 + 14 * number
        parts += [dot(x0 + FRAME.left + 10, y - 4, colour), text(x0 + FRAME.left + 18, y, meaning, "start")]
    return parts


_CORES = {f"rank{rank}" for rank in RANKS}


def _ranks(panel: Panel, points: Sequence[dict[str, float]]) -> list[str]:
    """Draws a line through the ranks."""
    at = [(panel.x(point["compression"]), panel.y(point["auc_difference"])) for point in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    parts = [f'<polyline points="{path}" fill="none" stroke="{CORES}" stroke-width="1.5"/>']
    for rank, point, (x, y) in zip(RANKS, points, at, strict=True):
        parts += [*_point(panel, point, CORES), text(x + 6, y - 6, str(rank), "start", CORES)]
    return parts


def _point(panel: Panel, point: dict[str, float], colour: str) -> list[str]:
    """Draws a point with a bar from the least to the most."""
    x, y = panel.x(point["compression"]), panel.y(point["auc_difference"])
    least, most = (panel.y(point[f"auc_difference_{end}"]) for end in ("least", "most"))
    return [f'<path d="M{x:.1f} {least:.1f}V{most:.1f}" stroke="{colour}" stroke-opacity=".45"/>', dot(x, y, colour)]


def _colour(case: str) -> str:
    return next(colour for begin, (_, colour) in OTHERS.items() if case.startswith(begin))


def main(arguments: Sequence[str]) -> None:
    """Writes the plot: FIGURES.jsonl PLOT.svg"""
    if len(arguments) != 2:
        raise SystemExit("usage: python -m benchmarks.tensor_train.plot FIGURES.jsonl PLOT.svg")
    figures = read(Path(arguments[0]).read_text(encoding="utf-8").splitlines(), "ttquality")
    Path(arguments[1]).write_text(svg(figures), encoding="utf-8")
    print(table(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
