"""A counter is declared once; stats, metrics and README's table are made from that."""

from __future__ import annotations

from dataclasses import dataclass

import ps
from ps.counting import Declared, counter, declared, figure
from ps.table.table import Table
from tests.metrics_table import DOCUMENT, METRICS, line, lines_of, written


def test_a_declaration_is_what_was_declared() -> None:
    @dataclass
    class Some:
        seen: int = counter("Things seen.", "things")
        bytes_in: int = counter("Bytes.", "bytes", metric="ps_in_bytes")
        largest: float = figure("The largest.", "ratio")

    assert declared(Some) == [
        Declared("seen", "Things seen.", "things", "ps_seen"),
        Declared("bytes_in", "Bytes.", "bytes", "ps_in_bytes"),
        Declared("largest", "The largest.", "ratio", None),
    ]
    assert (Some().seen, Some().largest) == (0, 0)


def test_a_table_says_all_that_it_counts() -> None:
    table = Table(ps.TableConfig(name="t", dim=1))
    stats = table.stats()
    assert {each.name for each in declared(type(table.counts))} <= stats.keys()
    table.counts.rows_late += 7
    assert table.stats()["rows_late"] == 7
    table.close()


def test_the_readme_has_what_is_declared() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert lines_of(document) == [line(metric) for metric in METRICS], "run: python -m tests.metrics_table"
    assert written(document) == document
