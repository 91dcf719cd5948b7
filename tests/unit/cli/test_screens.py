"""What status and top show, of stats that real shards gave: it fits, the ill come first, rates are what was done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ps
from ps.cli.output import Size
from ps.cli.screens.figures import FLOWS, flows, levels, rates, total
from ps.cli.screens.history import History
from ps.cli.screens.status import status_screen
from ps.cli.screens.top import SERIES, in_ram, on_time, top_screen
from ps.cli.survey import Survey, seen
from tests.unit.cli.surveys import many, watched

SCREEN = Size(80, 24)
GONE = ps.Unavailable("failed to connect to all addresses; last error: connection refused [10.0.0.3:50051]")


@pytest.fixture(scope="module")
def looks() -> tuple[Survey, Survey]:
    """Before and after 3 pushes and 2 pulls of 100 rows, ten seconds later."""
    with watched(memory={"ram_bytes": 64 << 20}) as (client, watch):
        for number in range(3):
            cold = ps.Fp16() if number else None
            client.create_table(ps.TableConfig(name=f"table_{number}", dim=8, cold=cold))
        before = watch.look()
        ids_N, grads_ND = np.arange(100), np.ones((100, 8), np.float32)
        for _ in range(3):
            client.push("table_0", ids_N, grads_ND)
        for _ in range(2):
            client.pull("table_0", ids_N)
        after = watch.look()
    return before, replace(after, at_s=before.at_s + 10)


def test_rates_are_what_was_done_by_the_seconds_that_it_took(looks: tuple[Survey, Survey]) -> None:
    (found,) = rates(*looks).values()
    assert set(found) == set(FLOWS)
    assert found["pushes"] == 0.3
    assert found["rows_pushed"] == 30
    assert found["rows_pulled"] == 20
    assert found["sent_bytes"] >= 2 * 100 * 8 * 4 / 10
    assert found["received_bytes"] >= 3 * 100 * 8 * 4 / 10
    assert found["rows_late"] == found["rows_raised"] == 0


def test_a_shard_that_was_restarted_or_does_not_answer_has_no_rates(looks: tuple[Survey, Survey]) -> None:
    before, after = (many(look, 3) for look in looks)
    after.shards[1].stats["process"]["pid"] += 1  # type: ignore[index]
    assert set(rates(before, after)) == {0, 2}
    assert set(rates(before, many(looks[1], 3, ill=[GONE]))) == {0, 1}
    assert set(rates(many(looks[0], 3, ill=[GONE]), after)) == {0}
    assert not rates(after, after), "no time went by"
    assert total([]) == dict.fromkeys(FLOWS, 0)


def test_levels_add_up_to_what_the_client_says(looks: tuple[Survey, Survey]) -> None:
    with watched() as (client, watch):
        client.create_table(ps.TableConfig(name="t", dim=8))
        client.push("t", np.arange(10), np.ones((10, 8)))
        assert levels(watch.look().stats).ram_used == pytest.approx(client.memory_usage()["total"], rel=0.05)
    now = levels(many(looks[1], 3).stats)
    assert now.rows == {"hot": 300, "cold": 0, "disk": 0}
    assert now.ram_budget == 3 * (64 << 20)
    assert levels([]).ram_budget is None
    assert flows(looks[1].stats[0])["pushes"] == 3


def test_hit_rates() -> None:
    done = dict.fromkeys(FLOWS, 0.0) | {"rows_pulled": 200.0, "rows_raised": 50.0, "rows_late": 1.0}
    assert in_ram(done) == 75
    assert on_time(done) == 99.5
    assert in_ram(done | {"rows_raised": 900.0}) == 0, "prepared and never pulled"
    assert in_ram(dict.fromkeys(FLOWS, 0.0)) is None
    assert on_time(None) is None


@given(shards=st.integers(1, 40), ill=st.integers(0, 5), width=st.integers(40, 200), height=st.integers(24, 60))
def test_both_fit_any_screen_and_show_who_is_ill(
    looks: tuple[Survey, Survey], shards: int, ill: int, width: int, height: int
) -> None:
    before = many(looks[0], shards)
    after = many(looks[1], shards, ill=[GONE] * min(ill, shards))
    history = History(before)
    history.add(after)
    for lines in (status_screen(after, Size(width, height)), top_screen(history, Size(width, height))):
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        if ill:
            assert any("DOWN" in line for line in lines[1:])
            assert any("refused" in line or "failed" in line or "what is wrong" in line for line in lines)


def test_the_screens_at_80x24(looks: tuple[Survey, Survey]) -> None:
    after = many(looks[1], 3, ill=["shard 1 was restarted and its rows are gone: stop training", GONE])
    status = status_screen(after, SCREEN)
    assert status[0].endswith("1 SERVING, 1 STATE_LOST, 1 DOWN")
    assert [line.split()[:2] for line in status[2:5]] == [["1", "STATE_LOST"], ["2", "DOWN"], ["0", "SERVING"]]
    assert "shard 1 is STATE_LOST: shard 1 was restarted and its rows are gone: stop   training" in " ".join(status)
    assert any(line.split()[:3] == ["table_0", "hot", "200"] for line in status), "of the two that answer"
    assert any(line.startswith("traffic  400 rows pulled, 600 pushed;") for line in status)
    history = History(many(looks[0], 3))
    history.add(after)
    top = top_screen(history, SCREEN)
    assert all(any(line.startswith(series.name) for line in top) for series in SERIES)
    assert any(line.split()[:5] == ["0", "SERVING", "0.30", "20", "30"] for line in top)


def test_a_disk_that_is_full_or_sick_is_degraded(looks: tuple[Survey, Survey]) -> None:
    stats = dict(looks[1].stats[0]) | {"degraded": "the disk is full"}
    ill = seen(looks[1].shards[0].info, stats)
    assert (ill.state, ill.why) == ("DEGRADED", "the disk is full")
    lines = status_screen(replace(looks[1], shards=[ill]), SCREEN)
    assert lines[0].endswith("1 DEGRADED")
    assert "shard 0 is DEGRADED: the disk is full" in lines


def test_a_file_has_no_bounds(looks: tuple[Survey, Survey]) -> None:
    lines = status_screen(many(looks[1], 40), Size(None, None))
    assert sum("SERVING" in line for line in lines) == 41
    assert not any(line.endswith("…") for line in lines)


def test_the_first_frame_has_nothing_to_compare(looks: tuple[Survey, Survey]) -> None:
    lines = top_screen(History(looks[0]), SCREEN)
    assert next(line for line in lines if line.startswith("pushes/s")).split() == ["pushes/s", "-"]
    assert History(looks[0]).last.report()["rates"] is None
