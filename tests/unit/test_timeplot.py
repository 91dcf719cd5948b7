"""Graphs of figures over time say what the figures say."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.harness.timeplot import COLOURS, COLUMNS, HEIGHT, MOST, WIDTH, Chart, Series, label, shown, svg
from benchmarks.service.watch import PANELS, named, panels

SVG = "{http://www.w3.org/2000/svg}"


def line(name: str, *values: float) -> Series:
    return Series(name, [(100.0 + i, value) for i, value in enumerate(values)])


def points(element: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in element.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


def drawn(chart: Chart, kind: str) -> dict[str, list[tuple[float, float]]]:
    """By colour."""
    root = ElementTree.fromstring(svg([chart]))
    return {e.attrib["fill" if kind == "polygon" else "stroke"]: points(e) for e in root.iter(SVG + kind)}


def test_lines_are_inside_and_higher_where_there_is_more() -> None:
    found = drawn(Chart("t", "bytes", [line("a", 1, 2, 3), line("b", 0, 0, 0)]), "polyline")
    a, b = found[COLOURS[0]], found[COLOURS[1]]
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in a + b)
    assert a[0][1] > a[1][1] > a[2][1], "SVG counts from the top"
    assert {y for _, y in b} == {max(y for _, y in b)}, "zero is drawn too"
    assert [x for x, _ in a] == [x for x, _ in b] == sorted(x for x, _ in a)


def test_a_pile_is_as_high_as_all_of_it() -> None:
    single = drawn(Chart("t", "bytes", [line("sum", 10, 10)]), "polyline")[COLOURS[0]]
    piled = drawn(Chart("t", "bytes", [line("a", 6, 6), line("b", 4, 4)], stacked=True), "polygon")
    assert piled[COLOURS[1]][0] == single[0]
    assert piled[COLOURS[0]][0][1] > piled[COLOURS[1]][0][1]


def test_a_pile_leaves_out_what_nobody_could_see() -> None:
    many = [line(f"s{i}", 100 - i) for i in range(20)]
    assert [one.name for one in shown(Chart("t", "", many, stacked=True))] == [f"s{i}" for i in range(MOST)]
    two = Chart("t", "", [line("small", 0.01), line("large", 100)], stacked=True)
    assert [one.name for one in shown(two)] == ["large"]


def test_charts_share_their_time_and_marks_are_where_they_belong() -> None:
    early, late = Chart("early", "", [line("a", 1, 2)]), Chart("late", "", [Series("b", [(101.0, 1), (110.0, 1)])])
    root = ElementTree.fromstring(svg([early, late, early], [(101.0, "then")]))
    assert root.attrib["viewBox"] == f"0 0 {COLUMNS * WIDTH} {2 * HEIGHT}"
    lines = [points(element) for element in root.iter(f"{SVG}polyline")]
    assert lines[0][1][0] == lines[1][0][0], "second 101 is at the same place"
    dashed = [e.attrib["d"] for e in root.iter(f"{SVG}path") if "stroke-dasharray" in e.attrib]
    assert dashed[0].startswith(f"M{lines[0][1][0]:.1f} ")
    assert "then" in [e.text for e in root.iter(f"{SVG}text")]


def test_a_chart_without_data_is_an_empty_one() -> None:
    assert not drawn(Chart("t", "", []), "polyline")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1500, "bytes", "1.5 kB"), (2e6, "Bps", "2 MB/s"), (0.25, "percentunit", "25 %"), (0, "short", "0")],
)
def test_labels_have_prefix_and_unit(value: float, unit: str, text: str) -> None:
    assert label(value, unit) == text


def test_the_panels_that_are_drawn_are_on_the_dashboard() -> None:
    assert tuple(panel.title for panel in panels()) == PANELS
    assert named("{{table}}: up", {"table": "ids"}) == "ids: up"
