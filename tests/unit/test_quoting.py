from __future__ import annotations

import pytest

from ps.quoting import MOST, shown, some_of


@pytest.mark.parametrize("value", ["x" * 10**6, b"x" * 10**6, ["x"] * 10**5, {"a": list(range(10**4))}, 10**4000])
def test_what_is_long_is_cut(value: object) -> None:
    text = shown(value)
    assert len(text) < MOST + 50
    assert " ... " in text


def test_what_is_short_stays_as_it_is() -> None:
    assert [shown(value) for value in ("t", b"t", 3, None)] == ["'t'", "b't'", "3", "None"]


def test_a_number_of_more_digits_than_python_writes_is_no_error() -> None:
    assert shown(10**5000) == "int of a great many digits"


def test_names_are_told_by_the_alphabet_and_counted() -> None:
    assert some_of([]) == "none"
    assert some_of({"b": 1, "a": 2}) == "a, b"
    assert some_of([f"t{number:03}" for number in range(5000)]).endswith("t009 and 4,990 more")
