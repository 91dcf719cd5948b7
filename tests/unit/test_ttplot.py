"""The plot and the tables of `ttquality` say what its figures say."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.panel import Figures, read
from benchmarks.ttplot import FRAME, STREAMS, main, svg, table
from benchmarks.ttquality import CASES, RANKS

SVG = "{http://www.w3.org/2000/svg}"


def figures_lines() -> list[str]:
    """Of every case; rank 8 loses the most, and saves the most."""
    lines = [json.dumps({"bench": "evict", "case": "lru", "metric": "auc", "value": 0.5})]
    for stream in STREAMS:
        cases = {"dense": (0.75, 0.0, 1.0)} | {
            name: (0.74, 1.6 / case.rank, 100 / case.rank * (1 if case.hot else 4)) for name, case in CASES.items()
        }
        for name, (auc, loss, compression) in cases.items():
            values = {"auc": auc, "log_loss": 0.5, "compression": compression, "auc_loss_percent": loss}
            values |= {"auc_loss_percent_least": loss - 0.05, "auc_loss_percent_most": loss + 0.05}
            for metric, value in values.items():
                found = {"bench": "ttquality", "case": f"{stream}_{name}", "metric": metric, "value": value}
                lines.append(json.dumps(found))
    return lines


@pytest.fixture
def figures() -> Figures:
    return read(figures_lines(), "ttquality")


def test_points_are_inside_and_those_that_lose_more_are_higher(figures: Figures) -> None:
    root = ElementTree.fromstring(svg(figures))
    points = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter(f"{SVG}circle")]
    assert all(0 < x < 2 * FRAME.width and 0 < y < FRAME.height for x, y in points)
    per_line = len(RANKS) + 1  # and one in the legend
    assert len(points) == per_line * 2 * len(STREAMS)
    for start in range(0, len(points), per_line):
        xs, ys = zip(*points[start : start + len(RANKS)], strict=True)
        assert list(xs) == sorted(xs, reverse=True)  # rank 8 first: it saves the most
        assert list(ys) == sorted(ys)  # pixels count from the top


def test_a_table_has_a_line_for_every_case_and_its_figures(figures: Figures) -> None:
    lines = table(figures, "flights").splitlines()
    assert len(lines) == 2 + 1 + len(CASES)
    assert "| `rank16` | 0.7400 | 0.5000 | 0.10 % (0.05 to 0.15) | 6.2x |" in lines


def test_the_command_writes_the_plot_and_prints_both_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, plot = tmp_path / "figures.jsonl", tmp_path / "plot.svg"
    given.write_text("\n".join(figures_lines()))
    main([str(given), str(plot)])
    ElementTree.parse(plot)
    said = capsys.readouterr().out
    assert said.count("| `rank64` |") == len(STREAMS)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(SystemExit, match=r"FIGURES\.jsonl PLOT\.svg"):
        main(["figures.jsonl"])
