"""Shares of a room: by sums that are kept, the same as by sums taken from scratch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ps.policy.placement import Shares

nbytes = st.integers(0, 10**6)
demands = st.tuples(nbytes, nbytes, nbytes)
"""What is firm, what requests need, what is wanted in all."""
changes = st.lists(
    st.tuples(st.integers(0, 5), st.none() | demands, st.sampled_from([10**3, 10**6, 10**7])), min_size=1, max_size=40
)
"""Which table, its demand or that it goes, and the room that is shared next."""


def from_scratch(tables: dict[int, tuple[int, int, int]], room: int) -> dict[int, int]:
    firm = {table: demand[0] for table, demand in tables.items()}
    needed = {table: max(usual - firm[table], 0) for table, (_, usual, _) in tables.items()}
    least = max(room // (16 * len(tables)), 1)
    wants = {table: max(demand[2] - firm[table] - needed[table], least) for table, demand in tables.items()}
    rest = max(room - sum(firm.values()), 0)
    asked = sum(needed.values())
    granted = min(asked, rest // 2)
    return {
        table: firm[table]
        + (needed[table] if granted == asked else granted * needed[table] // asked)
        + (rest - granted) * wants[table] // sum(wants.values())
        for table in tables
    }


@given(changes)
def test_sums_that_are_kept_are_those_taken_from_scratch(
    made: list[tuple[int, tuple[int, int, int] | None, int]],
) -> None:
    shares, tables = Shares(), {}
    for table, demand, room in made:
        if demand is None:
            tables.pop(table, None)
            shares.remove(table)
        else:
            tables[table] = demand
            shares.set(table, *demand)
        expected = from_scratch(tables, room) if tables else {}
        assert {table: shares.of(table, room) for table in tables} == expected
        if sum(firm for firm, _, _ in tables.values()) <= room:
            assert sum(expected.values()) <= room


def test_tables_share_by_what_they_want_and_requests_come_first() -> None:
    shares = Shares()
    shares.set("small", 0, 0, 100)
    shares.set("large", 0, 0, 200)
    assert [shares.of(table, 900) for table in ("small", "large")] == [300, 600]
    shares.set("small", 0, 300, 400)
    assert [shares.of(table, 900) for table in ("small", "large")] == [300 + 200, 400]
    shares.set("small", 0, 0, 100)
    shares.set("claims", 600, 0, 600)
    assert shares.of("claims", 900) == 600 + 300 * 18 // 318, "a table that wants no more has a sixteenth of its part"
