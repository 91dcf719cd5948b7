"""Arrays that grow in place: what they cost, where they end, how they go."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from ps.errors import ResourceExhausted
from ps.runtime import memory
from ps.runtime.host import available_bytes, host_ram_bytes
from ps.runtime.memory import HUGE_FROM_BYTES, HostMemory, ReservedArray
from ps.storage.budget.part import Part


def resident_bytes():
    """What this process has in RAM."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize(("tail", "dtype"), [((), np.uint32), ((), np.int64), ((65,), np.float32), ((4096,), np.uint8)])
def test_fresh_rows_are_zero_and_keep_what_is_written(tail, dtype):
    reserved = ReservedArray(tail, dtype, 10_000)
    assert reserved.array.shape == (10_000, *tail)
    assert reserved.array.dtype == dtype
    reserved.ensure(10_000)
    assert not reserved.array[::97].any()
    reserved.array[-1] = 7
    reserved.array[0] = 3
    assert (reserved.array[-1] == 7).all()
    assert (reserved.array[0] == 3).all()
    assert not reserved.array[1:-1:97].any()
    reserved.close()


def test_it_grows_without_moving():
    reserved = ReservedArray((64,), np.float32)
    first = reserved.array
    first[0] = 1
    for rows in (1, 1000, 50_000, 200_000):
        reserved.ensure(rows)
        reserved.array[rows - 1] = rows
        assert reserved.array.ctypes.data == first.ctypes.data
    assert first[0, 0] == 1
    assert first[999, 63] == 1000
    del first
    reserved.close()


def test_as_much_as_the_host_has_may_be_asked_for_and_next_to_nothing_is_taken():
    before = resident_bytes()
    reserved = ReservedArray((64,), np.float32)
    assert host_ram_bytes() - 256 < reserved.max_rows * 256 <= host_ram_bytes()
    assert reserved.array.nbytes == min(memory.FIRST_BYTES, reserved.max_rows * 256)
    assert reserved.committed_bytes == 0
    reserved.ensure(10)
    reserved.array[:10] = 1
    assert reserved.committed_bytes == mmap.PAGESIZE
    assert resident_bytes() - before < 4 << 20
    reserved.close()


def test_committed_bytes_cover_the_rows_in_use_and_little_more():
    reserved = ReservedArray((100,), np.float32)
    last = 0
    for rows in (1, 10, 11, 10_000, 25_000, 60_000):
        reserved.ensure(rows)
        assert rows * 400 <= reserved.committed_bytes < rows * 400 + (2 << 20)
        assert reserved.committed_bytes >= last
        last = reserved.committed_bytes
    assert last > HUGE_FROM_BYTES
    reserved.ensure(1)
    assert reserved.committed_bytes == last
    reserved.close()


def test_more_rows_than_reserved_are_refused_and_nothing_changes():
    reserved = ReservedArray((4,), np.float32, 100)
    reserved.ensure(100)
    committed = reserved.committed_bytes
    with pytest.raises(ResourceExhausted, match="101 rows"):
        reserved.ensure(101)
    assert reserved.committed_bytes == committed
    reserved.close()


def test_a_reservation_that_fails_names_the_size_and_the_mend(monkeypatch):
    monkeypatch.setattr(memory, "FIRST_BYTES", 2**62)
    with pytest.raises(ResourceExhausted, match=r"4,611,686,018,427,387,904 bytes.*overcommit"):
        ReservedArray((), np.uint8, 2**62)


def test_closing_gives_the_memory_back():
    before = resident_bytes()
    reserved = ReservedArray((), np.uint8)
    reserved.ensure(64 << 20)
    reserved.array[: 64 << 20] = 1
    assert resident_bytes() - before > 60 << 20
    reserved.close()
    assert reserved.committed_bytes == 0
    assert resident_bytes() - before < 8 << 20


def test_a_view_outlives_closing():
    """It keeps the memory mapped; the last one takes it along."""
    before = resident_bytes()
    reserved = ReservedArray((), np.uint8)
    reserved.ensure(64 << 20)
    view = reserved.array[: 64 << 20]
    view[:] = 9
    reserved.close()
    assert (view == 9).all()
    del view
    assert resident_bytes() - before < 8 << 20


def test_the_host_is_asked_before_memory_is_committed_and_a_refusal_changes_nothing(monkeypatch):
    left = 200 << 20
    monkeypatch.setattr(memory, "HOST", HostMemory(lambda: left, keep_free=50 << 20))
    reserved = ReservedArray((), np.uint8, 1 << 30)
    reserved.ensure(100 << 20)
    with pytest.raises(ResourceExhausted, match=r"less than 52,428,800 bytes of memory \(available: 209,715,200\)"):
        reserved.ensure(300 << 20)
    assert reserved.committed_bytes == 100 << 20
    left = 400 << 20
    reserved.ensure(300 << 20)
    reserved.close()


def test_many_small_steps_stop_at_the_same_place():
    """What was granted in one look is used up before the next; available memory that others take is noticed then."""
    left = 500 << 20
    host = HostMemory(lambda: left, keep_free=100 << 20)
    for _ in range(400):
        host.take(1 << 20)
        left -= 1 << 20
    with pytest.raises(ResourceExhausted):
        host.take(1 << 20)


def test_available_memory_is_measured():
    """Its exact value is the host's business, and other processes' too."""
    assert host_ram_bytes() // 100 < available_bytes() <= host_ram_bytes()


@pytest.fixture
def little_room(monkeypatch):
    """Arrays begin with 1 MiB of address space."""
    monkeypatch.setattr(memory, "FIRST_BYTES", 1 << 20)


def test_where_the_kernel_moves_no_pages_all_room_is_reserved_at_once(little_room, monkeypatch):
    monkeypatch.setattr(memory.address_space, "can_move", lambda: False)
    reserved = ReservedArray((), np.uint8, 1 << 30)
    assert len(reserved.array) == 1 << 30
    reserved.close()


@pytest.mark.parametrize("huge_pages", [True, False])
def test_an_array_that_outgrows_its_room_moves_with_what_was_written(little_room, monkeypatch, huge_pages):
    """Over several moves, with huge pages and without, in small steps and in leaps; memory is neither copied nor
    left behind."""
    monkeypatch.setattr(HostMemory, "huge_pages", huge_pages)
    before = resident_bytes()
    reserved = ReservedArray((64,), np.float32)
    expected, places = {}, set()
    for rows in (1, 4096, 4097, 5000, 32_000, 33_000, 70_000, 300_000, 600_000):
        reserved.ensure(rows)
        for row in (*range(max(0, rows - 900), rows, 300), rows - 1):
            assert not reserved.array[row].any() or row in expected
            reserved.array[row] = expected[row] = row + 1
        places.add(reserved.array.ctypes.data)
        assert all((reserved.array[row] == value).all() for row, value in expected.items())
    assert len(places) > 3
    assert all(place % (2 << 20) == 0 for place in places), "huge pages stay whole where they go"
    assert reserved.committed_bytes < 600_000 * 256 + (2 << 20)
    assert resident_bytes() - before < len(expected) * (2 << 20) + (8 << 20)
    reserved.close()
    assert resident_bytes() - before < 8 << 20


def test_an_array_that_is_looked_at_does_not_move(little_room):
    """Whoever holds a view would read and write where nothing is any more."""
    reserved = ReservedArray((), np.uint8)
    reserved.ensure(100)
    reserved.array[:100] = 3
    view = reserved.array[10:20]
    with pytest.raises(ResourceExhausted, match="being looked at"):
        reserved.ensure(2 << 20)
    reserved.array[10] = 4
    assert view[0] == 4
    del view
    reserved.ensure(2 << 20)
    assert reserved.array[:100].tolist() == [3] * 10 + [4] + [3] * 89
    reserved.close()


def test_a_move_that_the_memory_does_not_allow_changes_nothing(little_room, monkeypatch):
    monkeypatch.setattr(memory, "HOST", HostMemory(lambda: 100 << 20, keep_free=0))
    reserved = ReservedArray((), np.uint8)
    reserved.ensure(1 << 20)
    reserved.array[:] = 5
    with pytest.raises(ResourceExhausted, match="would leave this host less"):
        reserved.ensure(1 << 30)
    assert (reserved.array[: 1 << 20] == 5).all()
    assert reserved.committed_bytes == 1 << 20
    reserved.ensure(50 << 20)
    assert (reserved.array[: 1 << 20] == 5).all()
    reserved.close()


def test_what_is_given_back_is_the_systems_and_reads_as_zero_again():
    part = Part(64 << 20, "tests", huge_pages=False)
    reserved = ReservedArray((64,), np.float32, 200_000, part)
    reserved.ensure(200_000)
    reserved.array[:] = 1
    full = resident_bytes()
    reserved.shrink(50_000)
    assert part.used == reserved.committed_bytes == 50_000 * 256
    assert full - resident_bytes() > 30 << 20
    assert (reserved.array[:50_000] == 1).all()
    assert not reserved.array[50_000:60_000].any()
    reserved.shrink(60_000)
    assert reserved.committed_bytes == 50_000 * 256, "it is smaller already"
    reserved.ensure(100_000)
    reserved.array[99_999] = 2
    assert part.used == 100_000 * 256
    reserved.close()
    assert part.used == 0


def test_memory_that_changes_hands_is_not_asked_of_the_host_twice():
    """Where it is at its end, what one array gives back is there for the other."""
    left = [1 << 20]
    host = HostMemory(available=lambda: left[0], keep_free=0)
    host.take(1 << 20)
    left[0] = 0
    with pytest.raises(ResourceExhausted):
        host.take(1)
    host.give(4096)
    host.take(4096)
    with pytest.raises(ResourceExhausted):
        host.take(1)
