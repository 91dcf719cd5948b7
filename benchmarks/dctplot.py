"""The figures of `dctquality` as a plot (SVG) and as tables (Markdown, on stdout).

python -m benchmarks dctquality --json > figures.jsonl
python -m benchmarks.dctplot figures.jsonl docs/img/dctquality.svg
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.dctquality import CASES, DEFAULT, DENSITIES, NO_FEEDBACK, POOLED
from benchmarks.ttplot import Figures, dot, read, text

STREAMS = ("synthetic", "flights")
LINES = {
    "": ("with error feedback", "#1664c0", DENSITIES),
    "_no_feedback": ("without", "#c2410c", NO_FEEDBACK),
}
"""Of a top-k case's name, its ending -> what it means, its colour, and its densities."""
OTHERS = "#3f7d20"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 340, 62, 30, 34, 46
STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
"""Of the lines across, in AUC: the first by which they are ten at most."""
BAGS = "bags"
"""The stream of the pooled cases: a table of its own, and not in the plot."""
HEADING = "| pushes | AUC | log loss | AUC, difference (least to most) | bytes of a push |\n|---|---|---|---|---|"
BAGS_HEADING = (
    "| long bags | AUC | log loss | AUC, difference (least to most) | bytes of a push | of a pull | of a step |\n"
    "|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Panel:
    """Where a stream's figures are drawn: log2 of the factor by which a push is smaller to the right, AUC up."""

    x0: int
    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, factor: float) -> float:
        """In pixels."""
        share = (math.log2(factor) - self.low_x) / (self.high_x - self.low_x)
        return self.x0 + LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, difference: float) -> float:
        """In pixels, from the top."""
        share = (difference - self.low_y) / (self.high_y - self.low_y)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def table(figures: Figures, stream: str) -> str:
    """Markdown."""
    lines = [HEADING, f"{_whole(figures, stream, 'whole, fp32')} 1 |"]
    for case in CASES:
        of = figures[f"{stream}_{case}"]
        name = f"**`{case}`**" if case == DEFAULT else f"`{case}`"
        lines.append(f"{_against(of, name)} 1/{of['push_bytes_saved_factor']:.1f} |")
    return "\n".join(lines)


def bags_table(figures: Figures) -> str:
    """The same of the cases on long bags, with the bytes of pulls and of whole steps."""
    lines = [BAGS_HEADING, f"{_whole(figures, BAGS, 'by rows, whole')} 1 | 1 | 1 |"]
    for case in POOLED:
        of = figures[f"{BAGS}_{case}"]
        factors = (f"1/{of[f'{kind}_bytes_saved_factor']:.1f}" for kind in ("push", "pull", "step"))
        lines.append(f"{_against(of, f'`{case}`')} {' | '.join(factors)} |")
    return "\n".join(lines)


def _whole(figures: Figures, stream: str, name: str) -> str:
    dense = figures[f"{stream}_dense"]
    return f"| {name} | {dense['auc']:.4f} | {dense['log_loss']:.4f} | seed noise {dense['seed_noise']:.4f} |"


def _against(of: Mapping[str, float], name: str) -> str:
    # + 0.0: not -0.0000
    mean, least, most = (round(of[f"auc_difference{end}"], 4) + 0.0 for end in ("", "_least", "_most"))
    return f"| {name} | {of['auc']:.4f} | {of['log_loss']:.4f} | {mean:+.4f} ({least:+.4f} to {most:+.4f}) |"


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
    cases = {name: figures[f"{stream}_{name}"] for name in CASES}
    noise = figures[f"{stream}_dense"]["seed_noise"]
    lowest = min(-noise, *(case["auc_difference_least"] for case in cases.values()))
    highest = max(noise, *(case["auc_difference_most"] for case in cases.values()))
    step = next((step for step in STEPS if highest - lowest <= 10 * step), STEPS[-1])
    panel = Panel(
        x0,
        0,
        math.ceil(math.log2(max(2.0, *(case["push_bytes_saved_factor"] for case in cases.values())))),
        step * math.floor(lowest / step),
        step * math.ceil(highest / step),
    )
    parts = [_band(panel, noise), *_axes(panel, stream, step)]
    drawn = set()
    for number, (ending, (meaning, colour, densities)) in enumerate(LINES.items()):
        names = [f"topk_{percent}{ending}" for percent in densities]
        drawn.update(names)
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(panel, cases[name]) for name in names))
        parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for name, percent in zip(names, densities, strict=True):
            parts += _point(panel, cases[name], f"{percent} %", colour)
        y = HEIGHT - BOTTOM - 12 - 15 * number
        parts += [dot(x0 + LEFT + 12, y - 4, colour), text(x0 + LEFT + 20, y, f"top-k {meaning}", "start")]
    for number, name in enumerate(name for name in CASES if name not in drawn):
        label = name.removeprefix("topk_").replace("_", " ")
        parts += _point(panel, cases[name], label, OTHERS, below=14 + 12 * (number % 3))  # near each other: staggered
    return parts


def _band(panel: Panel, noise: float) -> str:
    """Differences that other first values make as well."""
    left, right, top, bottom = panel.x0 + LEFT, panel.x0 + WIDTH - RIGHT, panel.y(noise), panel.y(-noise)
    return f'<path d="M{left} {top:.1f}H{right}V{bottom:.1f}H{left}Z" fill="#1664c0" fill-opacity=".12"/>'


def _axes(panel: Panel, stream: str, step: float) -> list[str]:
    left, right = panel.x0 + LEFT, panel.x0 + WIDTH - RIGHT
    middle = (left + right) / 2
    parts = [
        text(middle, 20, f"{stream}: AUC against whole pushes (band: seed noise)"),
        text(middle, HEIGHT - 10, "bytes of pushes saved, factor"),
    ]
    for count in range(round((panel.high_y - panel.low_y) / step) + 1):
        difference = panel.low_y + step * count
        y = panel.y(difference)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="{"#888" if abs(difference) < 1e-9 else "#ddd"}"/>')
        parts.append(text(left - 6, y + 4, f"{difference + 0.0:+.4f}", "end"))
    for power in range(int(panel.low_x), int(panel.high_x) + 1):
        x = panel.x(2.0**power)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>')
        parts.append(text(x, HEIGHT - BOTTOM + 16, f"{2**power}x"))
    return parts


def _place(panel: Panel, case: dict[str, float]) -> tuple[float, float]:
    return panel.x(max(1.0, case["push_bytes_saved_factor"])), panel.y(case["auc_difference"])


def _point(panel: Panel, case: dict[str, float], label: str, colour: str, below: int = -6) -> list[str]:
    """With a bar from the least to the most."""
    x, y = _place(panel, case)
    least, most = (panel.y(case[f"auc_difference_{end}"]) for end in ("least", "most"))
    bar = f'<path d="M{x:.1f} {least:.1f}V{most:.1f}" stroke="{colour}" stroke-opacity=".45"/>'
    return [bar, dot(x, y, colour), text(x + 6, y + below, label, "start", colour)]


def main(arguments: Sequence[str]) -> None:
    """FIGURES.jsonl PLOT.svg"""
    if len(arguments) != 2:
        raise SystemExit("usage: python -m benchmarks.dctplot FIGURES.jsonl PLOT.svg")
    figures = read(Path(arguments[0]).read_text().splitlines(), "dctquality")
    Path(arguments[1]).write_text(svg(figures))
    for stream in STREAMS:
        print(f"\n{stream}\n\n{table(figures, stream)}")
    print(f"\n{BAGS}\n\n{bags_table(figures)}")


if __name__ == "__main__":
    main(sys.argv[1:])
