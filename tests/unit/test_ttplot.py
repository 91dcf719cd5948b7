"""The plot and the table of `ttquality` say what its figures say."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.harness.panel import Figures, read
from benchmarks.tensor_train.cases import RANKS, WAYS
from benchmarks.tensor_train.plot import FRAME, OTHERS, main, streams, svg, table

SVG = "{http://www.w3.org/2000/svg}"
STREAMS = ("synthetic", "flights")


def figures_lines() -> list[str]:
    """Of every case; rank 8 loses the most, and saves the most."""
    lines = [json.dumps({"bench": "evict", "case": "lru", "metric": "auc", "value": 0.5})]
    for stream in STREAMS:
        cases = {"whole": (0.75, 0.0, 1.0)} | dict.fromkeys(WAYS, (0.745, -0.005, 4.0))
        cases |= {f"rank{rank}": (0.74, -0.16 / rank, 400 / rank) for rank in RANKS}
        for name, (auc, difference, compression) in cases.items():
            values = {"auc": auc, "log_loss": 0.5, "compression": compression, "auc_difference": difference}
            values |= {"auc_difference_least": difference - 0.001, "auc_difference_most": difference + 0.001}
            values |= {"seed_noise": 0.0012} if name == "whole" else {}
            for metric, value in values.items():
                found = {"bench": "ttquality", "case": f"{stream}_{name}", "metric": metric, "value": value}
                lines.append(json.dumps(found))
    return lines


@pytest.fixture
def figures() -> Figures:
    return read(figures_lines(), "ttquality")


def test_the_streams_are_those_that_have_figures(figures: Figures) -> None:
    assert streams(figures) == list(STREAMS)


def test_points_are_inside_and_those_that_lose_more_are_lower(figures: Figures) -> None:
    root = ElementTree.fromstring(svg(figures))
    points = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter(f"{SVG}circle")]
    assert all(0 < x < 2 * FRAME.width and 0 < y < FRAME.height for x, y in points)
    per_stream = len(WAYS) + len(OTHERS) + 1  # and the legend
    assert len(points) == per_stream * len(STREAMS)
    for start in range(0, len(points), per_stream):
        xs, ys = zip(*points[start : start + len(RANKS)], strict=True)
        assert list(xs) == sorted(xs, reverse=True)  # rank 8 first: it saves the most
        assert list(ys) == sorted(ys, reverse=True)  # pixels count from the top


def test_a_table_has_a_line_for_every_case_and_its_figures(figures: Figures) -> None:
    lines = table(figures).splitlines()
    assert len(lines) == 4 + len(WAYS)
    assert lines[0] == "|  | synthetic | flights |"
    assert "| whole: AUC | 0.7500 | 0.7500 |" in lines
    assert "| seed noise | 0.0012 | 0.0012 |" in lines
    cell = "-0.0100 (-0.0110 to -0.0090), 25.0x"
    assert f"| `rank16` | {cell} | {cell} |" in lines


def test_the_command_writes_the_plot_and_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, plot = tmp_path / "figures.jsonl", tmp_path / "plot.svg"
    given.write_text("\n".join(figures_lines()))
    main([str(given), str(plot)])
    ElementTree.parse(plot)
    said = capsys.readouterr().out
    assert said == table(read(figures_lines(), "ttquality")) + "\n"


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(SystemExit, match=r"FIGURES\.jsonl PLOT\.svg"):
        main(["figures.jsonl"])
