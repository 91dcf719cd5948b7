"""The figures of `ttquality` as a plot (SVG) and as tables (Markdown, on stdout).

python -m benchmarks ttquality --json > figures.jsonl
python -m benchmarks.ttplot figures.jsonl docs/img/ttquality.svg
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.panel import Figures, Frame, Panel, dot, read, text
from benchmarks.ttquality import CASES, RANKS

STREAMS = ("synthetic", "flights")
ENDINGS = {"": ("with hot rows", "#1664c0"), "_no_cache": ("cores alone", "#c2410c")}
"""Of a case's name -> what it means, and its colour."""
FRAME = Frame(width=420, height=320, left=58, right=22, top=34, bottom=46)
HEADING = "| tables | AUC | log loss | loss in AUC (least to most) | compression |\n|---|---|---|---|---|"


def table(figures: Figures, stream: str) -> str:
    """Markdown."""
    dense = figures[f"{stream}_dense"]
    lines = [HEADING, f"| dense | {dense['auc']:.4f} | {dense['log_loss']:.4f} | | 1x |"]
    for case in CASES:
        of = figures[f"{stream}_{case}"]
        # + 0.0: not -0.00
        loss, least, most = (round(of[f"auc_loss_percent{end}"], 2) + 0.0 for end in ("", "_least", "_most"))
        lines.append(
            f"| `{case}` | {of['auc']:.4f} | {of['log_loss']:.4f} | {loss:.2f} % ({least:.2f} to {most:.2f}) "
            f"| {of['compression']:.1f}x |"
        )
    return "\n".join(lines)


def svg(figures: Figures) -> str:
    """Both streams side by side."""
    parts: list[str] = []
    for number, stream in enumerate(STREAMS):
        parts += _stream(figures, stream, number * FRAME.width)
    return FRAME.svg(parts, len(STREAMS))


def _stream(figures: Figures, stream: str, x0: int) -> list[str]:
    lines = {ending: [figures[f"{stream}_rank{rank}{ending}"] for rank in RANKS] for ending in ENDINGS}
    points = [point for line in lines.values() for point in line]
    step = 0.1 if max(point["auc_loss_percent_most"] for point in points) < 1 else 0.2
    panel = Panel(
        FRAME,
        x0,
        math.floor(math.log2(min(point["compression"] for point in points))),
        math.ceil(math.log2(max(point["compression"] for point in points))),
        step * math.floor(min(0, *(point["auc_loss_percent_least"] for point in points)) / step),
        step * math.ceil(max(point["auc_loss_percent_most"] for point in points) / step),
    )
    above = f"{stream}: loss in AUC, % (points: ranks {', '.join(map(str, RANKS))})"
    parts = panel.axes(above, "compression of all tables", step, "{:.1f}".format)
    for number, (ending, (meaning, colour)) in enumerate(ENDINGS.items()):
        parts += _line(panel, lines[ending], colour)
        y = FRAME.top + 12 + 15 * number
        parts += [dot(x0 + FRAME.left + 12, y - 4, colour), text(x0 + FRAME.left + 20, y, meaning, "start")]
    return parts


def _line(panel: Panel, points: Sequence[dict[str, float]], colour: str) -> list[str]:
    """Points with a bar from the least to the most."""
    at = [(panel.x(point["compression"]), panel.y(point["auc_loss_percent"])) for point in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>']
    for rank, point, (x, y) in zip(RANKS, points, at, strict=True):
        least, most = (panel.y(point[f"auc_loss_percent_{end}"]) for end in ("least", "most"))
        parts.append(f'<path d="M{x:.1f} {least:.1f}V{most:.1f}" stroke="{colour}" stroke-opacity=".45"/>')
        parts += [dot(x, y, colour), text(x + 6, y - 6, str(rank), "start", colour)]
    return parts


def main(arguments: Sequence[str]) -> None:
    """FIGURES.jsonl PLOT.svg"""
    if len(arguments) != 2:
        raise SystemExit("usage: python -m benchmarks.ttplot FIGURES.jsonl PLOT.svg")
    figures = read(Path(arguments[0]).read_text(encoding="utf-8").splitlines(), "ttquality")
    Path(arguments[1]).write_text(svg(figures), encoding="utf-8")
    for stream in STREAMS:
        print(f"\n{stream}\n\n{table(figures, stream)}")


if __name__ == "__main__":
    main(sys.argv[1:])
