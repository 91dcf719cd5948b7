"""Figures and lines as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps.cli.screens.layout import SPARKS, bar, columns, cut, first, sparkline, wrapped
from ps.cli.screens.numbers import count, nbytes, of_budget, percent
from ps.cli.sizing.quantities import parse_bytes, parse_count, parse_network
from ps.errors import InvalidArgument

SCALES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
BINARY = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}


@given(st.integers(0, 10**17))
def test_a_figure_is_short_and_within_half_a_percent(n: int) -> None:
    for text, scales in ((count(n), SCALES), (nbytes(n), BINARY)):
        value, _, unit = text.partition(" ")
        assert float(value) * scales[unit] == pytest.approx(n, rel=0.005)
        assert len(text) <= 9 or n > 10**15


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0"), (999, "999"), (999.6, "1.00 k"), (1000, "1.00 k"), (123_456, "123 k"), (0.25, "0.25")]
)
def test_counts(n: float, text: str) -> None:
    assert count(n) == text


def test_shares() -> None:
    assert percent(1, 3) == "33.3 %"
    assert percent(0, 0) == "-"
    assert of_budget(1 << 20, None) == "1.00 MiB"
    assert of_budget(1 << 20, 1 << 21) == "1.00 MiB of 2.00 MiB"


@given(st.integers(1, 10**14))
def test_what_is_shown_can_be_given_back(n: int) -> None:
    assert parse_count(count(n)) == pytest.approx(n, rel=0.005)
    assert parse_bytes(nbytes(n)) == pytest.approx(n, rel=0.005)


@pytest.mark.parametrize(
    ("text", "n"), [("1e9", 10**9), ("2.5M", 2_500_000), ("1_000", 1000), ("3b", 3 * 10**9), ("1,000", 1000)]
)
def test_counts_are_read(text: str, n: int) -> None:
    assert parse_count(text) == n


@pytest.mark.parametrize(
    ("text", "n"), [("64GiB", 64 << 30), ("1TB", 10**12), ("512 MiB", 512 << 20), ("100", 100), ("7B", 7)]
)
def test_bytes_are_read(text: str, n: int) -> None:
    assert parse_bytes(text) == n


def test_a_network_is_read_in_bits() -> None:
    assert parse_network("10Gbit/s") == parse_network("10 gbit") == 1.25e9


@pytest.mark.parametrize("text", ["", "x", "-3", "1e", "3 parsecs", "nan", "1 2"])
def test_what_is_no_number_is_said(text: str) -> None:
    for parse in (parse_count, parse_bytes, parse_network):
        with pytest.raises(InvalidArgument, match=r"expected|is no number|is no size"):
            parse(text)


CELLS = st.lists(st.tuples(*[st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=9)] * 3), min_size=1)


@given(CELLS)
def test_cells_stand_below_each_other(rows: list[tuple[str, str, str]]) -> None:
    lines = columns(rows, left=1)
    width = max(map(len, lines))
    for line, row in zip(lines, rows, strict=True):
        assert line.ljust(width).split() == [cell for cell in row if cell]
        assert line == line.rstrip()
        assert not row[2] or line.endswith(row[2])


@given(st.text(st.characters(codec="ascii", categories=("L", "Zs"))), st.integers(4, 40))
def test_a_wrapped_sentence_keeps_its_words_and_its_width(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert " ".join(lines).split() == text.split()
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)


@given(st.lists(st.text(max_size=50), max_size=30), st.integers(1, 30))
def test_a_list_is_cut_and_says_how_much(items: list[str], room: int) -> None:
    shown = first(items, room, "things")
    assert len(shown) <= room
    if len(items) > room:
        assert shown[-1] == f"... and {len(items) - room + 1} more things"
    assert all(len(line) <= room for line in cut(items, room))


def test_a_sparkline_goes_from_nothing_to_the_most() -> None:
    assert sparkline([None, 0, 5, 10], 6) == "   " + SPARKS[0] + SPARKS[4] + SPARKS[7]
    assert sparkline(range(100), 3)[-1] == SPARKS[7]
    assert sparkline([0, 0], 2) == 2 * SPARKS[0]
    assert sparkline([1], 0) == ""


@given(st.lists(st.none() | st.floats(0, 1e18), max_size=50), st.integers(0, 60))
def test_a_sparkline_is_as_wide_as_it_is_told(values: list[float | None], width: int) -> None:
    assert len(sparkline(values, width)) == width


def test_a_bar_is_full_at_most() -> None:
    assert bar(1, 2, 4) == "[##  ]"
    assert bar(9, 2, 4) == "[####]"
    assert bar(1, 0, 4) == "[    ]"
