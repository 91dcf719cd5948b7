"""Arrays that grow in place: what they cost, where they end, how they go."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from ps import memory
from ps.errors import ResourceExhausted
from ps.memory import HUGE_FROM_BYTES, HostMemory, ReservedArray, available_bytes, host_ram_bytes


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


def test_as_much_as_the_host_has_is_reserved_and_next_to_nothing_taken():
    before = resident_bytes()
    reserved = ReservedArray((64,), np.float32)
    assert host_ram_bytes() - 256 < reserved.array.nbytes <= host_ram_bytes()
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


def test_a_reservation_that_fails_names_the_size_and_the_mend():
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
