"""Draws the figures of `dctquality` as a plot (SVG) and as tables (Markdown, on stdout).

python -m benchmarks dctquality --json > figures.jsonl
python -m benchmarks.quality.dctplot figures.jsonl docs/img/dctquality.svg
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.panel import Figures, Frame, Panel, dot, read, text
from benchmarks.quality.dctquality import CASES, DEFAULT, DENSITIES, FEW, IN_FULL, NO_FEEDBACK, POOLED

STREAMS = ("synthetic", "bursty", "flights", "retail", "movielens")
"""The streams in the plot; one that is not among the figures is left out."""
LINES = {
    "": ("with error feedback", "#1664c0", DENSITIES),
    "_no_feedback": ("without", "#c2410c", NO_FEEDBACK),
}
"""How the names of top-k cases end -> what they mean, their colour, and their densities."""
OTHERS = "#3f7d20"
FRAME = Frame(width=460, height=340, left=62, right=30, top=34, bottom=46)
STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
"""Steps between the lines across, in AUC; the first one by which there are at most ten lines is taken."""
BAGS = "bags"
"""The stream of the pooled cases, which has a table of its own and is not in the plot."""
HEADING = "| pushes | AUC | log loss | AUC, difference (least to most) | bytes of a push |\n|---|---|---|---|---|"
BAGS_HEADING = (
    "| long bags | AUC | log loss | AUC, difference (least to most) | bytes of a push | of a pull | of a step |\n"
    "|---|---|---|---|---|---|---|"
)


def table(figures: Figures, stream: str) -> str:
    """Writes the table of all cases as Markdown."""
    lines = [HEADING, f"{_whole(figures, stream, 'whole, fp32')} 1 |"]
    for case in CASES:
        of = figures[f"{stream}_{case}"]
        lines.append(f"{_against(of, _named(case))} 1/{of['push_bytes_saved_factor']:.1f} |")
    return "\n".join(lines)


def streams_table(figures: Figures) -> str:
    """Writes as Markdown what the few cases that every stream has cost and save there."""
    streams = [stream for stream in STREAMS if f"{stream}_dense" in figures]
    dense = [figures[f"{stream}_dense"] for stream in streams]
    whole = [f"{of['auc']:.4f}; {of['seed_noise']:.4f}" for of in dense]
    lines = [
        f"| pushes | {' | '.join(streams)} |",
        "|---" * (1 + len(streams)) + "|",
        f"| whole: AUC; seed noise | {' | '.join(whole)} |",
    ]
    for case in FEW:
        cells = []
        for stream in streams:
            of = figures.get(f"{stream}_{case}")
            cells.append(f"{_difference(of)}, 1/{of['push_bytes_saved_factor']:.1f}" if of else "")
        lines.append(f"| {_named(case)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bags_table(figures: Figures) -> str:
    """Writes as Markdown the cases on long bags, with the bytes of pulls and of whole steps."""
    lines = [BAGS_HEADING, f"{_whole(figures, BAGS, 'by rows, whole')} 1 | 1 | 1 |"]
    for case in POOLED:
        of = figures[f"{BAGS}_{case}"]
        factors = (f"1/{of[f'{kind}_bytes_saved_factor']:.1f}" for kind in ("push", "pull", "step"))
        lines.append(f"{_against(of, f'`{case}`')} {' | '.join(factors)} |")
    return "\n".join(lines)


def _whole(figures: Figures, stream: str, name: str) -> str:
    dense = figures[f"{stream}_dense"]
    return f"| {name} | {dense['auc']:.4f} | {dense['log_loss']:.4f} | seed noise {dense['seed_noise']:.4f} |"


def _named(case: str) -> str:
    return f"**`{case}`**" if case == DEFAULT else f"`{case}`"


def _against(of: Mapping[str, float], name: str) -> str:
    return f"| {name} | {of['auc']:.4f} | {of['log_loss']:.4f} | {_difference(of)} |"


def _difference(of: Mapping[str, float]) -> str:
    # + 0.0: not -0.0000
    mean, least, most = (round(of[f"auc_difference{end}"], 4) + 0.0 for end in ("", "_least", "_most"))
    return f"{mean:+.4f} ({least:+.4f} to {most:+.4f})"


def svg(figures: Figures) -> str:
    """Draws the streams that have all cases, side by side."""
    parts: list[str] = []
    for number, stream in enumerate(IN_FULL):
        parts += _stream(figures, stream, number * FRAME.width)
    return FRAME.svg(parts, len(IN_FULL))


def _stream(figures: Figures, stream: str, x0: int) -> list[str]:
    cases = {name: figures[f"{stream}_{name}"] for name in CASES}
    noise = figures[f"{stream}_dense"]["seed_noise"]
    lowest = min(-noise, *(case["auc_difference_least"] for case in cases.values()))
    highest = max(noise, *(case["auc_difference_most"] for case in cases.values()))
    step = next((step for step in STEPS if highest - lowest <= 10 * step), STEPS[-1])
    panel = Panel(
        FRAME,
        x0,
        0,
        math.ceil(math.log2(max(2.0, *(case["push_bytes_saved_factor"] for case in cases.values())))),
        step * math.floor(lowest / step),
        step * math.ceil(highest / step),
    )
    above, below = f"{stream}: AUC against whole pushes (band: seed noise)", "bytes of pushes saved, factor"
    parts = [_band(panel, noise), *panel.axes(above, below, step, lambda difference: f"{difference + 0.0:+.4f}")]
    drawn = set()
    for number, (ending, (meaning, colour, densities)) in enumerate(LINES.items()):
        names = [f"topk_{percent}{ending}" for percent in densities]
        drawn.update(names)
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(panel, cases[name]) for name in names))
        parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for name, percent in zip(names, densities, strict=True):
            parts += _point(panel, cases[name], f"{percent} %", colour)
        y = FRAME.height - FRAME.bottom - 12 - 15 * number
        parts += [dot(x0 + FRAME.left + 12, y - 4, colour), text(x0 + FRAME.left + 20, y, f"top-k {meaning}", "start")]
    for number, name in enumerate(name for name in CASES if name not in drawn):
        label = name.removeprefix("topk_").replace("_", " ")
        parts += _point(panel, cases[name], label, OTHERS, below=14 + 12 * (number % 3))  # near each other: staggered
    return parts


def _band(panel: Panel, noise: float) -> str:
    """Draws the band of differences that other first values make as well."""
    left, right, top, bottom = (
        panel.x0 + FRAME.left,
        panel.x0 + FRAME.width - FRAME.right,
        panel.y(noise),
        panel.y(-noise),
    )
    return f'<path d="M{left} {top:.1f}H{right}V{bottom:.1f}H{left}Z" fill="#1664c0" fill-opacity=".12"/>'


def _place(panel: Panel, case: dict[str, float]) -> tuple[float, float]:
    return panel.x(max(1.0, case["push_bytes_saved_factor"])), panel.y(case["auc_difference"])


def _point(panel: Panel, case: dict[str, float], label: str, colour: str, below: int = -6) -> list[str]:
    """Draws a point with a bar from the least to the most."""
    x, y = _place(panel, case)
    least, most = (panel.y(case[f"auc_difference_{end}"]) for end in ("least", "most"))
    bar = f'<path d="M{x:.1f} {least:.1f}V{most:.1f}" stroke="{colour}" stroke-opacity=".45"/>'
    return [bar, dot(x, y, colour), text(x + 6, y + below, label, "start", colour)]


def main(arguments: Sequence[str]) -> None:
    """Writes the plot: FIGURES.jsonl PLOT.svg"""
    if len(arguments) != 2:
        raise SystemExit("usage: python -m benchmarks.quality.dctplot FIGURES.jsonl PLOT.svg")
    figures = read(Path(arguments[0]).read_text(encoding="utf-8").splitlines(), "dctquality")
    Path(arguments[1]).write_text(svg(figures), encoding="utf-8")
    print(streams_table(figures))
    for stream in IN_FULL:
        print(f"\n{stream}\n\n{table(figures, stream)}")
    print(f"\n{BAGS}\n\n{bags_table(figures)}")


if __name__ == "__main__":
    main(sys.argv[1:])
