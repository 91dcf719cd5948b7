"""The plot and the tables of `dctquality` say what its figures say."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.harness.panel import Figures, read
from benchmarks.quality.dctplot import BAGS, FRAME, STREAMS, bags_table, main, streams_table, svg, table
from benchmarks.quality.dctquality import CASES, DEFAULT, DENSITIES, FEW, IN_FULL, NO_FEEDBACK, POOLED
from ps.nn import TopK

ABSENT = "movielens"
SVG = "{http://www.w3.org/2000/svg}"


def figures_lines() -> list[str]:
    """Of every case: without error feedback more is lost."""
    lines = [json.dumps({"bench": "ttquality", "case": "synthetic_dense", "metric": "auc", "value": 0.5})]
    few = dict.fromkeys(set(STREAMS) - {ABSENT}, FEW)
    for stream, cases in {**few, **dict.fromkeys(IN_FULL, CASES), BAGS: POOLED}.items():
        values = {"auc": 0.75, "log_loss": 0.5, "seed_noise": 0.0004}
        found = {f"{stream}_dense": values}
        for number, name in enumerate(cases):
            lost = -0.006 if name.endswith("no_feedback") else -0.0003
            found[f"{stream}_{name}"] = {
                **{"auc": 0.75 + lost, "log_loss": 0.5, "auc_difference": lost},
                **{"auc_difference_least": lost - 0.0001, "auc_difference_most": lost + 0.0001},
                **{"push_bytes_saved_factor": 1.0 + number, "pull_bytes_saved_factor": 2.0 + number},
                **{"step_bytes_saved_factor": 1.5 + number},
            }
        for case, metrics in found.items():
            lines += [
                json.dumps({"bench": "dctquality", "case": case, "metric": metric, "value": value})
                for metric, value in metrics.items()
            ]
    return lines


@pytest.fixture
def figures() -> Figures:
    return read(figures_lines(), "dctquality")


def test_every_case_is_a_point_inside_and_those_that_lose_more_are_lower(figures: Figures) -> None:
    root = ElementTree.fromstring(svg(figures))
    points = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter(f"{SVG}circle")]
    assert all(0 < x < 2 * FRAME.width and 0 < y < FRAME.height for x, y in points)
    assert len(points) == 2 * (len(CASES) + 2)  # and two in each legend
    with_feedback, without = points[: len(DENSITIES)], points[len(DENSITIES) + 1 :][: len(NO_FEEDBACK)]
    assert max(y for _, y in with_feedback) < min(y for _, y in without)  # pixels count from the top


def test_a_table_has_a_line_for_every_case_and_its_figures(figures: Figures) -> None:
    lines = table(figures, "flights").splitlines()
    assert len(lines) == 3 + len(CASES)
    assert "| whole, fp32 | 0.7500 | 0.5000 | seed noise 0.0004 | 1 |" in lines
    factor = 1 + list(CASES).index(DEFAULT)
    assert f"| **`{DEFAULT}`** | 0.7497 | 0.5000 | -0.0003 (-0.0004 to -0.0002) | 1/{factor:.1f} |" in lines


def test_the_table_of_all_streams_has_those_there_are_with_their_differences_and_bytes(figures: Figures) -> None:
    lines = streams_table(figures).splitlines()
    assert lines[0] == "| pushes | synthetic | bursty | flights | retail |"
    assert lines[2] == f"| whole: AUC; seed noise {4 * '| 0.7500; 0.0004 '}|"
    few, full = (f"| -0.0003 (-0.0004 to -0.0002), 1/{1 + list(of).index('topk_5'):.1f} " for of in (FEW, CASES))
    assert lines[3 + list(FEW).index("topk_5")] == f"| `topk_5` {full}{few}{full}{few}|"


def test_the_table_of_long_bags_has_the_bytes_of_pushes_pulls_and_steps_of_each_case(figures: Figures) -> None:
    lines = bags_table(figures).splitlines()
    assert len(lines) == 3 + len(POOLED)
    assert "| by rows, whole | 0.7500 | 0.5000 | seed noise 0.0004 | 1 | 1 | 1 |" in lines
    factors = [f"1/{start + list(POOLED).index('pooled'):.1f}" for start in (1, 2, 1.5)]
    assert f"| `pooled` | 0.7497 | 0.5000 | -0.0003 (-0.0004 to -0.0002) | {' | '.join(factors)} |" in lines


def test_the_default_of_the_benchmark_is_that_of_the_package() -> None:
    assert CASES[DEFAULT].sparsify == TopK()
    assert CASES[DEFAULT].wire_dtype == "fp32"


def test_the_command_writes_the_plot_and_prints_all_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, plot = tmp_path / "figures.jsonl", tmp_path / "plot.svg"
    given.write_text("\n".join(figures_lines()))
    main([str(given), str(plot)])
    ElementTree.parse(plot)
    printed = capsys.readouterr().out
    assert printed.count("| `relaxed` |") == len(IN_FULL)
    assert printed.count("| `pooled_both` |") == 1


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(SystemExit, match=r"FIGURES\.jsonl PLOT\.svg"):
        main(["figures.jsonl"])
