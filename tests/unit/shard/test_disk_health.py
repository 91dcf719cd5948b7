"""Pauses after writes that failed, against a clock of our own."""

from __future__ import annotations

import pytest

import ps
from ps.errors import CorruptRow, DiskError, DiskFull
from ps.shard.upkeep.disk_health import LONGEST_PAUSE_S, DiskHealth
from tests.clocks import ByHand


@pytest.mark.parametrize(
    ("error", "pauses"),
    [(DiskError("gone"), [1, 2, 4, 8, 16, 32, 60, 60]), (DiskFull("full", retry_after_s=5), [5, 10, 20, 40, 60])],
)
def test_each_refusal_doubles_the_pause_and_a_write_that_passes_ends_it(error: ps.PsError, pauses: list[float]) -> None:
    clock = ByHand()
    health = DiskHealth(clock.monotonic)
    for pause in pauses:
        assert health.takes_rows()
        assert health.refused(error) == pause <= LONGEST_PAUSE_S
        clock.now += pause - 0.01
        assert not health.takes_rows()
        clock.now += 0.02
    assert health.degraded == f"rows cannot go down to disk: {error}"
    assert health.errors == {"read": 0, "write": len(pauses)}
    health.accepted()
    assert health.degraded is None
    assert health.refused(error) == pauses[0]


def test_a_read_that_failed_is_raised_counted_and_not_forgotten_after_a_write() -> None:
    health = DiskHealth(ByHand().monotonic)
    with health.reading():
        pass
    assert (health.errors["read"], health.degraded) == (0, None)
    with pytest.raises(CorruptRow), health.reading():
        raise CorruptRow("row 7")
    health.accepted()
    assert (health.errors["read"], health.degraded) == (1, "rows on disk cannot be read: row 7")
    assert health.takes_rows(), "what can be read must not keep rows from going down"
    with pytest.raises(ps.TableNotFound), health.reading():
        raise ps.TableNotFound("t")
    assert health.errors == {"read": 1, "write": 0}
