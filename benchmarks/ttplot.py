"""The figures of `ttquality` as a plot (SVG) and as tables (Markdown, on stdout).

python -m benchmarks ttquality --json > figures.jsonl
python -m benchmarks.ttplot figures.jsonl docs/img/ttquality.svg
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ttquality import CASES, RANKS

Figures = dict[str, dict[str, float]]
"""By case and metric."""

STREAMS = ("synthetic", "flights")
ENDINGS = {"": ("with hot rows", "#1664c0"), "_no_cache": ("cores alone", "#c2410c")}
"""Of a case's name -> what it means, and its colour."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 320, 58, 22, 34, 46
HEADING = "| tables | AUC | log loss | loss in AUC (least to most) | compression |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Panel:
    """Where a stream's figures are drawn: log2 of the compression to the right, the loss in AUC up, in percent."""

    x0: int
    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, compression: float) -> float:
        """In pixels."""
        share = (math.log2(compression) - self.low_x) / (self.high_x - self.low_x)
        return self.x0 + LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, loss: float) -> float:
        """In pixels, from the top."""
        return HEIGHT - BOTTOM - (loss - self.low_y) / (self.high_y - self.low_y) * (HEIGHT - TOP - BOTTOM)


def read(lines: Iterable[str], bench: str = "ttquality") -> Figures:
    """Of JSON lines, those of one benchmark."""
    found: Figures = defaultdict(dict)
    for line in lines:
        figure = json.loads(line)
        if figure["bench"] == bench:
            found[figure["case"]][figure["metric"]] = figure["value"]
    return found


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
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="11" fill="#222">',
        f'<rect width="{2 * WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for number, stream in enumerate(STREAMS):
        parts += _stream(figures, stream, number * WIDTH)
    return "\n".join([*parts, "</svg>\n"])


def _stream(figures: Figures, stream: str, x0: int) -> list[str]:
    lines = {ending: [figures[f"{stream}_rank{rank}{ending}"] for rank in RANKS] for ending in ENDINGS}
    points = [point for line in lines.values() for point in line]
    step = 0.1 if max(point["auc_loss_percent_most"] for point in points) < 1 else 0.2
    panel = Panel(
        x0,
        math.floor(math.log2(min(point["compression"] for point in points))),
        math.ceil(math.log2(max(point["compression"] for point in points))),
        step * math.floor(min(0, *(point["auc_loss_percent_least"] for point in points)) / step),
        step * math.ceil(max(point["auc_loss_percent_most"] for point in points) / step),
    )
    parts = _axes(panel, stream, step)
    for number, (ending, (meaning, colour)) in enumerate(ENDINGS.items()):
        parts += _line(panel, lines[ending], colour)
        y = TOP + 12 + 15 * number
        parts += [dot(x0 + LEFT + 12, y - 4, colour), text(x0 + LEFT + 20, y, meaning, "start")]
    return parts


def _axes(panel: Panel, stream: str, step: float) -> list[str]:
    left, right = panel.x0 + LEFT, panel.x0 + WIDTH - RIGHT
    middle = (left + right) / 2
    parts = [
        text(middle, 20, f"{stream}: loss in AUC, % (points: ranks {', '.join(map(str, RANKS))})"),
        text(middle, HEIGHT - 10, "compression of all tables"),
    ]
    for count in range(round((panel.high_y - panel.low_y) / step) + 1):
        loss = panel.low_y + step * count
        y = panel.y(loss)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="{"#888" if abs(loss) < 1e-9 else "#ddd"}"/>')
        parts.append(text(left - 6, y + 4, f"{loss:.1f}", "end"))
    for power in range(int(panel.low_x), int(panel.high_x) + 1):
        x = panel.x(2.0**power)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>')
        parts.append(text(x, HEIGHT - BOTTOM + 16, f"{2**power}x"))
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


def dot(x: float, y: float, colour: str) -> str:
    """A point."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'


def text(x: float, y: float, words: str, anchor: str = "middle", colour: str = "#222") -> str:
    """A label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def main(arguments: Sequence[str]) -> None:
    """FIGURES.jsonl PLOT.svg"""
    if len(arguments) != 2:
        raise SystemExit("usage: python -m benchmarks.ttplot FIGURES.jsonl PLOT.svg")
    figures = read(Path(arguments[0]).read_text().splitlines())
    Path(arguments[1]).write_text(svg(figures))
    for stream in STREAMS:
        print(f"\n{stream}\n\n{table(figures, stream)}")


if __name__ == "__main__":
    main(sys.argv[1:])
