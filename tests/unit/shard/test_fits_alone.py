"""Any request that fits alone gets through, beside tables of whatever kind that want all the room; and no row is lost,
or another one, for what that takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ps
from ps.errors import ResourceExhausted
from ps.shard import Gradients, Shard, StepRef, TableIds
from ps.storage.budget.slots import TABLE_BYTES
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, push, read
from tests.unit.shard.test_room import exported

DEADLINE_S = 60.0
SPACE = 2000
ROWS_BYTES = 60_000
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "wide": {"dim": 32},
    "fp16": {"cold": ps.Fp16(hot_fraction=0.3), "half_life_pushes": 64},
    "late": {"cold": ps.Fp16(hot_fraction=0.3), "half_life_pushes": 64 * 20},
    "threshold": {"admission": ps.CountThreshold(min_count=2, cells=1 << 12)},
    "lots": {"admission": ps.Probability(p=0.1)},
    "swapped": {"swap_fraction": 0.8},
    "tt": {
        "cold": ps.TensorTrain(rows=SPACE, ranks=2, hot_rows=20, lift_after=1),
        "initializer": ps.Normal(std=0.1),
        "half_life_pushes": 64,
    },
}


@contextmanager
def small(kinds: Mapping[str, str], has_disk: bool, rows_bytes: int = ROWS_BYTES) -> Iterator[Shard]:
    """A shard whose tables share room for some hundred rows, after what each takes for itself."""
    with tempfile.TemporaryDirectory() as folder:
        config = ps.ServiceConfig(
            memory={"ram_bytes": ps.config.MIN_RAM_BYTES}, disk={"path": Path(folder) if has_disk else None}
        )
        shard = Shard(0, config)
        try:
            for name, kind in kinds.items():
                new_table(shard, name, **KINDS[kind])
            left = shard.budget.for_slots(len(kinds))
            assert left is not None
            shard.budget._resize(rows_bytes - left)
            yield shard
        finally:
            shard.close()


def retried(shard: Shard, target: Any, parts: list[Gradients]) -> int:
    """As a client does: how many attempts it took."""
    write, end = a_write(), time.monotonic() + DEADLINE_S
    for attempt in range(1, 100_000):
        try:
            push(shard, target, *parts, write=write)
        except ResourceExhausted as error:
            assert error.retry_after_s is not None, error
            assert time.monotonic() < end, f"no progress: {error}"
            time.sleep(0.001)
        else:
            return attempt
    raise AssertionError("unreachable")


def request(shard: Shard, names: list[str], share: float, rng: np.random.Generator) -> list[TableIds]:
    """Ids of these tables, of which all rows together take this share of the room."""
    room = shard.budget.slots
    free = room.rows_bytes - sum(t.room.reserved * t.room.bytes_each for t in shard.tables.values())
    made = []
    for name in names:
        n = int(share * free / len(names)) // shard.tables[name].room.bytes_each
        made.append(ids_of(name, rng.choice(SPACE, min(n, SPACE), replace=False).tolist()))
    return made


def ones(shard: Shard, ids: list[TableIds]) -> list[Gradients]:
    return [grads_of(one.table, np.ones((len(one.ids_N), shard.tables[one.table].config.dim))) for one in ids]


tables = st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=4)
requests = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from([0.05, 0.3, 0.6, 0.95]), st.booleans(), st.booleans()),
    min_size=1,
    max_size=14,
)
"""The first table, whether the next one too, the share of the room, whether prepared, whether other ids each time."""


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(tables, requests, st.booleans(), st.integers(0, 9))
def test_what_fits_alone_gets_through(
    kinds: list[str], made: list[tuple[int, bool, float, bool, bool]], has_disk: bool, seed: int
) -> None:
    names = {f"t{number}": kind for number, kind in enumerate(kinds)}
    with small(names, has_disk) as shard:
        expected: dict[tuple[str, int], int] = {}
        for number, (first, two, share, prepared, other) in enumerate(made):
            chosen = list(dict.fromkeys(list(names)[(first + more) % len(names)] for more in range(1 + two)))
            ids = request(shard, chosen, share * 0.97, np.random.default_rng(number if other else seed))
            if prepared:
                try:
                    shard.prepare(StepRef(1, number), ids)
                except ResourceExhausted:
                    assert has_disk
            retried(shard, ids, ones(shard, ids))
            for one in ids:
                for id_ in one.ids_N.tolist() if names[one.table] in ("plain", "wide", "swapped") else ():
                    expected[one.table, id_] = expected.get((one.table, id_), 0) - 1
            if has_disk:
                check(shard, expected)
        room = shard.budget.slots
        assert sum(table.room.held for table in shard.tables.values()) <= room.rows_bytes
        assert shard.budget.arrays.used <= room.rows_bytes + TABLE_BYTES * len(names)


def check(shard: Shard, expected: dict[tuple[str, int], int]) -> None:
    for name in {name for name, _ in expected}:
        ids = [id_ for table, id_ in expected if table == name]
        found = np.concatenate([read(shard, name, ids[start : start + 50]) for start in range(0, len(ids), 50)])
        assert (found == np.array([expected[name, id_] for id_ in ids])[:, None]).all()


@pytest.mark.parametrize("kind", ["plain", "fp16", "late", "threshold"])
def test_what_is_refused_and_read_in_between_changes_no_row_that_stays(kind: str) -> None:
    """Without a disk, where rows are dropped to make room: by the writes that went through alone."""
    names = {"t": kind, "u": "wide"}
    with small(names, False) as calm, small(names, False) as busy:
        for number in range(30):
            rng = np.random.default_rng(number)
            ids = request(calm, ["t", "u"] if number % 3 else ["t"], [0.1, 0.5, 0.9][number % 7 % 3], rng)
            too_many = request(calm, ["u"], 1.1, rng)
            with pytest.raises(ResourceExhausted, match="ram_bytes") as refused:
                push(busy, too_many, *ones(busy, too_many))
            assert refused.value.retry_after_s is None
            busy.prepare(StepRef(1, number), ids)
            read(busy, "t", list(range(40)))
            for shard in (calm, busy):
                assert retried(shard, ids, ones(shard, ids)) == 1
            assert exported(calm) == exported(busy)
        assert calm.tables["t"].counts.rows_evicted + calm.tables["u"].counts.rows_evicted > 200


def test_a_write_that_is_wrong_drops_no_row_to_make_room() -> None:
    with small({"t": "plain"}, False) as shard:
        for start in range(0, SPACE, 100):
            retried(shard, [ids_of("t", range(start, start + 100))], [grads_of("t", np.ones((100, DIM)))])
        full, dropped = exported(shard), shard.tables["t"].counts.rows_evicted
        assert dropped > 0
        new = ids_of("t", range(10 * SPACE, 10 * SPACE + len(shard.tables["t"]) // 2))
        for wrong in (np.ones((len(new.ids_N), DIM + 1)), np.ones((1, DIM))):
            with pytest.raises((ps.DimensionMismatch, ps.LengthMismatch)):
                shard.upsert(a_write(), new, [wrong.astype(np.float32)])
        assert exported(shard) == full
        shard.upsert(a_write(), new, [np.ones((len(new.ids_N), DIM), np.float32)])
        assert shard.tables["t"].counts.rows_evicted > dropped, "the right one does"


@pytest.mark.parametrize("has_disk", [True, False])
def test_a_table_that_is_new_gets_the_room_that_others_have_filled(has_disk: bool) -> None:
    with small({"old": "plain"}, has_disk, 16 * TABLE_BYTES) as shard:
        for start in range(0, 80_000, 1000):
            retried(shard, [ids_of("old", range(start, start + 1000))], [grads_of("old", np.ones((1000, DIM)))])
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                new_table(shard, "new", dim=32)
                break
            except ResourceExhausted as error:
                assert error.retry_after_s is not None
                assert time.monotonic() < end
        n = shard.budget.slots.rows_bytes // 2 // shard.tables["new"].room.bytes_each
        retried(shard, [ids_of("new", range(n))], [grads_of("new", np.ones((n, 32)))])
        there = (read(shard, "new", list(range(100))) == -1).all(axis=1).sum()
        assert there == 100 if has_disk else there > 50, "some may have been dropped after the push"


def test_what_no_room_could_hold_is_told_so_and_how_much_there_is() -> None:
    for has_disk in (True, False):
        with small({"t": "plain", "u": "fp16"}, has_disk) as shard:
            ids = request(shard, ["t", "u"], 1.1, np.random.default_rng(0))
            with pytest.raises(ResourceExhausted, match=r"ram_bytes leaves room for [\d,]+: send fewer") as refused:
                push(shard, ids, *ones(shard, ids))
            assert refused.value.retry_after_s is None
            assert not len(shard.tables["t"])
