"""What is refused when a shard is saved or restored, and what a restored shard has beside the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ps
from ps.durability.state import restore
from ps.errors import ConfigError, CorruptRow, DataLoss, InvalidArgument, SequenceConflict, ShardPoisoned
from ps.kernels.ranking import score
from ps.round import Round
from ps.shard import Shard
from ps.shard.ledger import Ledger, WriteId
from ps.shard.requests import PushResult, WriteResult
from ps.storage.disk.copy import Known
from ps.storage.disk.tier import DiskTier
from ps.storage.ram.saving import SAVED
from ps.table.beside import STEP_BYTES
from ps.table.cold.fp16 import Fp16Cold
from ps.table.push_count import WORKER_BYTES
from tests.conftest import QUIET
from tests.devices import DEVICES
from tests.unit.durability.memory import again, check_same, saved, whole
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, push, push_ids, read
from tests.unit.shard.test_replay import TABLES
from tests.unit.storage.test_disk_failures import put_raw, raw_value
from tests.waiting import until

ONES = np.ones((4, DIM), np.float32)
LARGEST = (1 << 64) - 1


@pytest.fixture
def shard() -> Iterator[Shard]:
    with ExitStack() as stack:
        shard = Shard(0, QUIET)
        stack.callback(shard.close)
        for name in "tu":
            new_table(shard, name)
        push_ids(shard, "t", range(4), ONES)
        yield shard


def test_the_largest_numbers_come_back(shard: Shard) -> None:
    """Worker ids, sequences and digests are whatever the wire can carry; rounds are a worker of their own."""
    writes = [WriteId(LARGEST, LARGEST, (1 << 128) - 1), WriteId(0, 1, 1 << 64), WriteId(7, 2, 3)]
    for write in writes[:2]:
        push(shard, [ids_of("t", [1])], grads_of("t", ONES[:1]), write=write)
    with shard.look_ahead([ids_of("u", [1])]) as ahead:
        shard.rounds.join(Round("g", 1, 0, 1), 10, writes[2], ahead, [grads_of("u", ONES[:1])])
    removed = WriteId(5, 1, 9)
    result = shard.remove(removed, ids_of("t", [*range(20)]))
    with again(saved(shard), QUIET) as other:
        check_same(whole(other), whole(shard))
        for write in writes:
            assert other.core.ledger.answer(write) == shard.core.ledger.answer(write)
        repeated = other.remove(removed, ids_of("t", [*range(20)]))
        assert repeated.existed_N.tolist() == result.existed_N.tolist() == [i < 4 for i in range(20)]
        assert other.version == shard.version


def test_tables_come_back_in_their_order(shard: Shard) -> None:
    shard.drop_table("t")
    new_table(shard, "t", dim=8)
    with again(saved(shard), QUIET) as other:
        assert [table.config for table in other.tables.values()] == [table.config for table in shard.tables.values()]


def test_a_ledger_with_less_room_forgets_what_came_first() -> None:
    first: Ledger[PushResult | WriteResult] = Ledger(20, 1 << 20)
    for sequence in range(1, 30):
        result = WriteResult.of(sequence, np.arange(sequence) % 3 == 0) if sequence % 2 else PushResult(sequence, 2)
        first.record(first.reserve([(WriteId(1, sequence, sequence), result, result.nbytes)]))
    for window, max_bytes, known in ((20, 1 << 20, 20), (16, 1 << 20, 16), (20, 5_000, 13)):
        other: Ledger[PushResult | WriteResult] = Ledger(window, max_bytes)
        other.restore(first.state())
        assert other.nbytes <= max_bytes
        if known == 20:
            assert other.nbytes == first.nbytes
        for sequence in range(1, 30):
            write = WriteId(1, sequence, sequence)
            if sequence < 30 - known:
                with pytest.raises(SequenceConflict, match="may have been applied or not"):
                    other.answer(write)
            else:
                assert str(other.answer(write)) == str(first.answer(write))


def test_the_room_that_rows_have_is_the_same_again() -> None:
    """What is remembered of workers takes from it, and how many rows are evicted goes by it."""
    config = QUIET.having(memory={"ram_bytes": 64 << 20})
    shard = Shard(0, config)
    try:
        new_table(shard)
        before = shard.budget.for_slots(1)
        for worker in range(2 * STEP_BYTES // WORKER_BYTES + 2):
            push(shard, [ids_of("t", [1])], grads_of("t", ONES[:1]), write=a_write(worker))
        assert shard.budget.for_slots(1) == before - 2 * STEP_BYTES
        with again(saved(shard), config) as other:
            assert other.budget.for_slots(1) == shard.budget.for_slots(1)
            other.drop_table("t")
            shard.drop_table("t")
            assert other.budget.for_slots(1) == shard.budget.for_slots(1)
    finally:
        shard.close()


def test_cold_rows_that_are_float32_still_read_as_what_they_are_to_be() -> None:
    """Rows are saved as their bytes are. Which of them have become cold meanwhile, the restored table knows."""
    shard, rng = Shard(0, QUIET), np.random.default_rng(0)
    try:
        new_table(shard, cold=ps.Fp16(hot_fraction=0.1), half_life_pushes=64)
        cold = shard.tables["t"].cold
        assert isinstance(cold, Fp16Cold)
        cold.sweep_slots = 0
        for start in range(0, 60, 20):
            push_ids(shard, "t", range(start, start + 20), rng.standard_normal((20, DIM)))
        push_ids(shard, "t", [0], ONES[:1])
        assert len(shard.tables["t"].ram.rows.pools.half) == 0
        with again(saved(shard), QUIET) as other:
            everything = read(other, "t", range(60))
            np.testing.assert_array_equal(everything, read(shard, "t", range(60)))
            assert (everything == everything.astype(np.float16)).all(axis=1).sum() > 30
            table = other.tables["t"]
            assert other.engine.run(table.cold.sweep)
            assert not other.engine.run(table.cold.sweep)
            assert len(table.ram.rows.pools.half) > 30, "all slots were looked at"
            write = a_write()
            for each in (shard, other):
                push(each, [ids_of("t", range(30))], grads_of("t", np.full((30, DIM), 0.1)), write=write)
            check_same(whole(other), whole(shard))
    finally:
        shard.close()


@pytest.mark.parametrize("device", DEVICES)
def test_rows_on_a_device_come_back_there(device: str) -> None:
    shard = Shard(0, QUIET)
    try:
        new_table(shard, optimizer=ps.Adam(lr=0.1), device=device)
        push_ids(shard, "t", range(3000), np.ones((3000, DIM)))
        with again(saved(shard), QUIET) as other:
            check_same(whole(other), whole(shard))
            write = a_write()
            for each in (shard, other):
                push(each, [ids_of("t", range(0, 6000, 2))], grads_of("t", np.ones((3000, DIM))), write=write)
            np.testing.assert_array_equal(read(other, "t", range(6000)), read(shard, "t", range(6000)))
    finally:
        shard.close()


def test_a_poisoned_shard_is_not_saved(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(shard.core.ledger, "record", fails)
    with pytest.raises(ShardPoisoned):
        push_ids(shard, "t", [1], ONES[:1])
    with pytest.raises(ShardPoisoned):
        saved(shard)


def test_only_a_new_shard_is_restored(shard: Shard) -> None:
    before, copy = whole(shard), saved(shard)
    with pytest.raises(InvalidArgument, match="at version 3: only a new one"):
        restore(shard, copy)
    check_same(whole(shard), before)


@pytest.mark.parametrize("change", [-1, 1])
def test_rows_that_are_missing_or_too_many_are_noticed_and_nothing_is_left(shard: Shard, change: int) -> None:
    whole_copy, broken = saved(shard), saved(shard)
    ((page, marks_N),) = broken.rows("t")
    page_N = np.arange(3) if change < 0 else np.array([0, 1, 2, 3, 3])
    ids_N = np.arange(100, 100 + len(page_N))
    arrays = (ids_N, page.rows_NB[page_N], page.scores_N[page_N], page.stamps_N[page_N])
    broken.rows("t")[:] = [(type(page)(*arrays), marks_N[page_N])]
    other = Shard(0, QUIET)
    try:
        with pytest.raises(DataLoss, match=f"table 't': {4 + change} rows came back of the 4"):
            restore(other, broken)
        assert (other.version, len(other.tables)) == (0, 0)
        restore(other, whole_copy)
        check_same(whole(other), whole(shard))
    finally:
        other.close()


@pytest.mark.parametrize("part", ["memory", "disk"])
def test_a_shard_that_counts_time_in_another_way_refuses(shard: Shard, part: str, tmp_path: Path) -> None:
    """There stamps would mean something else."""
    parts: dict[str, Any] = {"memory": {"ram_bytes": 256 << 20}, "disk": {"path": tmp_path}}
    other = Shard(0, QUIET.having(**{part: parts[part]}))
    try:
        with pytest.raises(ConfigError, match=r"another clock.*memory\.ram_bytes"):
            restore(other, saved(shard))
    finally:
        other.close()


def test_an_array_of_another_shape_is_refused(shard: Shard) -> None:
    copy, other = saved(shard), Shard(0, QUIET)
    copy.state()["tables.0.ranking.counts_R"] = np.zeros(1, np.int64)
    try:
        with pytest.raises(ConfigError, match=r"int64\[1\] was saved.*int64\[16384\]"):
            restore(other, copy)
    finally:
        other.close()


# rows on disk


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[tuple[Shard, DiskTier, ps.ServiceConfig]]:
    """A shard whose rows are on disk, most of them; and the configuration of another one."""
    shard = Shard(0, QUIET.having(disk={"path": tmp_path / "first"}))
    try:
        new_table(shard, swap_fraction=0.9, max_rows_per_shard=1000)
        push_ids(shard, "t", range(200), np.ones((200, DIM)))
        tier = shard.tables["t"].store.below.tier
        assert isinstance(tier, DiskTier)
        until(lambda: len(tier) >= 150)
        yield shard, tier, QUIET.having(disk={"path": tmp_path / "second"})
    finally:
        shard.close()


def test_rows_come_back_where_they_were(on_disk: tuple[Shard, DiskTier, ps.ServiceConfig]) -> None:
    """With what the disk has of those in RAM, so that rows which are written or dropped later are counted right."""
    shard, _, config = on_disk
    push_ids(shard, "t", range(100), np.zeros((100, DIM)))  # rows come up, and leave a copy below
    copy = saved(shard)
    with again(copy, config) as other:
        table = other.tables["t"]
        assert other.core.capacity._taken == shard.core.capacity._taken == 200 * table.bytes_each
        assert len(table.store.below) == Known.from_json(copy.state()["disk"]).rows["t"]
        saved_marks = {i: mark for records, marks_N in copy.rows("t") for i, mark in zip(records.ids_N, marks_N)}  # noqa: B905
        assert marks_of(other) == saved_marks
        check_same(whole(other), whole(shard))
        np.testing.assert_array_equal(read(other, "t", range(201))[:, 0], [-1] * 200 + [0])


def marks_of(shard: Shard) -> dict[int, int]:
    """Of the rows in RAM, by id."""

    def look() -> dict[int, int]:
        ram = shard.tables["t"].ram
        slots_N = np.flatnonzero(ram.marks_S[: ram.slots_end] & score.USED)
        return dict(zip(ram.ids_S[slots_N], ram.marks_S[slots_N] & SAVED, strict=True))

    return shard.engine.run(look)


def test_rows_that_were_dropped_and_are_there_still_do_not_come_back(
    on_disk: tuple[Shard, DiskTier, ps.ServiceConfig],
) -> None:
    shard, _, config = on_disk
    table = shard.tables["t"]

    def evict() -> bool:
        table.clock.plan_eviction(100).carry_out()
        return table.store.dropped.pending

    assert shard.engine.run(evict)
    with again(saved(shard), config) as other:
        assert 85 <= len(other.tables["t"]) <= 100
        check_same(whole(other), whole(shard))


def test_rows_that_may_be_folded_stay_in_ram(tmp_path: Path) -> None:
    """More rows than belong in RAM are saved before them, by a shard without a disk."""
    config = QUIET.having(disk={"path": tmp_path / "second"})
    shard = Shard(0, QUIET.having(disk={"path": tmp_path / "first"}))
    try:
        shard.create_table(TABLES["tt"])
        shard.upsert(a_write(), ids_of("tt", range(30)), [np.ones((30, DIM), np.float32)])
        copy = saved(shard)
        del copy.state()["disk"]
        staying_N = copy.state()["tables.0.staying_N"] = np.arange(20, 30)
        with again(copy, config) as other:
            table = other.tables["tt"]
            assert len(table.ram) < 30
            assert (other.engine.run(lambda: table.find(staying_N)) >= 0).all()
            assert saved(other).state()["tables.0.staying_N"].tolist() == staying_N.tolist()
    finally:
        shard.close()


def spoil(tier: DiskTier, id_: int) -> None:
    value = bytearray(raw_value(tier, id_))
    value[-1] ^= 0x10
    put_raw(tier, id_, bytes(value))


def an_id_on_disk(shard: Shard) -> int:
    table = shard.tables["t"]

    def find() -> int:
        ids_N = np.arange(200)
        return int(ids_N[table.find(ids_N) < 0][0])

    return shard.engine.run(find)


def test_a_row_that_cannot_be_read_is_said_and_not_left_out(
    on_disk: tuple[Shard, DiskTier, ps.ServiceConfig],
) -> None:
    """The disk's files are saved as they are: whoever reads that row is told, here and there."""
    shard, tier, config = on_disk
    lost, write = an_id_on_disk(shard), a_write()
    spoil(tier, lost)
    with again(saved(shard), config) as other:
        for each in (shard, other):
            with pytest.raises(CorruptRow, match=r"client\.remove"):
                read(each, "t", [lost])
            assert each.remove(write, ids_of("t", [lost])).existed_N.all()
        check_same(whole(other), whole(shard))


def test_a_removal_that_comes_again_takes_no_rows_that_came_since(
    on_disk: tuple[Shard, DiskTier, ps.ServiceConfig],
) -> None:
    """Not even where these cannot be read: the ledger is asked before they are forgotten."""
    shard, tier, _ = on_disk
    id_, write = an_id_on_disk(shard), a_write()
    first = shard.remove(write, ids_of("t", [id_]))
    push_ids(shard, "t", [id_], ONES[:1])

    def went_down() -> bool:
        push_ids(shard, "t", range(1000, 1040), np.ones((40, DIM)))
        return bool(shard.engine.run(lambda: shard.tables["t"].find(np.array([id_]))[0] < 0))

    until(went_down)
    spoil(tier, id_)
    version = shard.version
    assert shard.remove(write, ids_of("t", [id_])) is not None
    assert shard.version == version
    assert len(shard.tables["t"]) == 240
    assert first.existed_N.all()
