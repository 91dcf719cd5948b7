"""The graphs of docs/operations.md can be drawn again."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.service.prometheus import NotInstalled
from benchmarks.service.watch import PANELS, watch

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.slow
def test_the_graphs_are_drawn_from_what_prometheus_says() -> None:
    try:
        root = ElementTree.fromstring(watch(seconds=20))
    except NotInstalled as reason:
        pytest.skip(str(reason))
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert set(PANELS) <= texts
    assert {
        "hot: rows",
        "process: allocator",
        "ids: up",
        "ids: late",
        "rows sent",
        "gradients received",
        "shard 0 budget",
        "pushes",
    } <= texts
