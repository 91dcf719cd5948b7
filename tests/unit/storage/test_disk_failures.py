"""Disks that fail, for real: bytes changed in files, no room, no right to write."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from ps.errors import CorruptRow, DiskError, DiskFull
from ps.storage.disk.codec import PARTITIONS, keys_of
from ps.storage.disk.database import Disk
from ps.storage.disk.errors import disk_error
from tests.waiting import until

from .disks import ROW, as_dict, records, small_disk, spoil_a_block

F32 = np.float32


@contextmanager
def mounted(folder, size):
    """A file system in memory of that size, which only root may mount."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(write) -> int:
    """write(0), write(1), ... until the disk is full; how many were accepted."""
    for k in range(60):
        try:
            write(k)
        except DiskFull:
            return k
    raise AssertionError("the disk took everything")


def raw_value(table, id_):
    return table.family.get(keys_of(np.array([id_])), [])[0]


def put_raw(table, id_, value):
    table.family.put(keys_of(np.array([id_])), [value])


def test_a_spoiled_block_costs_its_rows_and_no_others(tmp_path):
    written = records(np.arange(20_000))
    with small_disk(tmp_path) as disk:
        disk.table("users", [ROW]).write(written)
    spoil_a_block(tmp_path)
    with small_disk(tmp_path, fresh=False) as disk:
        table = disk.table("users", [ROW])
        with pytest.raises(CorruptRow, match=r"table 'users': the row of id .*others.*checksum mismatch") as caught:
            table.read(written.ids_N)
        lost = set(caught.value.ids)
        assert 1 <= len(lost) < 200
        expected = {id_: row for id_, row in as_dict([written]).items() if id_ not in lost}
        assert as_dict(caught.value.sound) == expected
        assert table.read_errors == len(lost)
        well_N = np.array(sorted(expected))
        assert as_dict(table.read(well_N)) == expected


def test_partitions_go_on_behind_a_spoiled_block_and_then_say_so(tmp_path):
    written = records(np.arange(20_000))
    with small_disk(tmp_path) as disk:
        disk.table("users", [ROW]).write(written)
    spoil_a_block(tmp_path)
    with small_disk(tmp_path, fresh=False) as disk:
        table = disk.table("users", [ROW])
        assert 19_000 < len(table) < 20_000  # what can be reached
        with pytest.raises(CorruptRow, match="table 'users': a block of rows") as caught:
            table.partitions(0, PARTITIONS)
        assert len(as_dict(caught.value.sound)) == len(table)


def test_rows_of_a_spoiled_block_can_be_overwritten_and_discarded(tmp_path):
    written = records(np.arange(20_000))
    with small_disk(tmp_path) as disk:
        disk.table("users", [ROW]).write(written)
    spoil_a_block(tmp_path)
    with small_disk(tmp_path, fresh=False) as disk:
        table = disk.table("users", [ROW])
        with pytest.raises(CorruptRow) as caught:
            table.read(written.ids_N)
        lost = caught.value.ids
        again = records(lost[::2], seed=9)
        table.write(again)
        table.discard(np.array(lost[1::2], np.int64))
        assert as_dict(table.read(np.array(lost))) == as_dict([again])


@pytest.mark.parametrize("place", [0, 1, 5, 9, 13, -1])
def test_a_changed_byte_is_noticed_though_rocksdb_finds_nothing(tmp_path, place):
    written = records(range(10))
    with small_disk(tmp_path) as disk:
        table = disk.table("users", [ROW])
        table.write(written)
        value = bytearray(raw_value(table, 4))
        value[place] ^= 0x10
        put_raw(table, 4, bytes(value))
        with pytest.raises(CorruptRow, match=r"the row of id 4 on disk .* checksum or version") as caught:
            table.read(np.arange(10))
        assert caught.value.ids == [4]
        assert sorted(as_dict(caught.value.sound)) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_a_sound_row_under_another_id_is_corrupt(tmp_path):
    with small_disk(tmp_path) as disk:
        table = disk.table("users", [ROW])
        table.write(records(range(10)))
        put_raw(table, 3, raw_value(table, 4))
        with pytest.raises(CorruptRow, match="the row of id 3"):
            table.read(np.arange(10))


@pytest.mark.parametrize("length", [0, 1, 13, ROW, ROW + 12, ROW + 14, 5000])
def test_another_length_is_corrupt(tmp_path, length):
    with small_disk(tmp_path) as disk:
        table = disk.table("users", [ROW])
        table.write(records(range(10)))
        put_raw(table, 3, bytes(length))
        for read in (table.read, lambda _: table.partitions(0, PARTITIONS)):
            with pytest.raises(CorruptRow) as caught:
                read(np.arange(10))
            assert caught.value.ids == [3]


def test_a_full_disk_refuses_writes_whole_goes_on_reading_and_recovers_by_itself(tmp_path):
    with mounted(tmp_path / "m", "12m") as remount, small_disk(tmp_path / "m" / "d") as disk:
        table = disk.table("users", [1000])
        batch = 500

        def write(k):
            table.write(records(range(k * batch, (k + 1) * batch), seed=k, width=1000), held=0)

        accepted = fill(write)
        with pytest.raises(DiskFull, match="no room on the disk below") as caught:
            write(accepted)
        assert caught.value.retry_after_s == 5
        assert len(table) == accepted * batch
        everything_N = np.arange((accepted + 2) * batch)
        expected = as_dict(records(range(k * batch, (k + 1) * batch), seed=k, width=1000) for k in range(accepted))
        assert as_dict(table.read(everything_N)) == expected
        remount("size=200m")

        def passes():
            try:
                write(accepted)
            except DiskFull:
                return False
            return True

        until(passes)
        assert len(as_dict(table.read(everything_N))) == (accepted + 1) * batch == len(table)


def test_a_closed_disk_that_was_full_says_so_and_lets_go(tmp_path):
    with mounted(tmp_path / "m", "12m"):
        disk = Disk(tmp_path / "m" / "d", cache_bytes=1 << 20, threads=2, write_buffer_bytes=1 << 20)
        table = disk.table("users", [1000])
        fill(lambda k: table.write(records(range(k * 500, (k + 1) * 500), width=1000), held=0))
        with pytest.raises(DiskFull):
            disk.close()
        disk.close()
        with small_disk(tmp_path / "m" / "d"):
            pass


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path):
    """Where no file system can be mounted: the system refuses to let files grow."""
    script = """
import pathlib, resource, signal, sys
from ps.errors import DiskFull
from tests.unit.storage.disks import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
disk = Disk(pathlib.Path(sys.argv[1]), 1 << 20, 2, write_buffer_bytes=1 << 20)
table = disk.table("users", [1000])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    for k in range(60):
        table.write(records(range(k * 500, (k + 1) * 500), width=1000), held=0)
except DiskFull as error:
    assert len(as_dict(table.read(np.arange(60 * 500)))) == len(table) == k * 500
    print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert "refused" in done.stdout, done.stderr


def test_a_read_only_file_system_is_refused_at_the_start(tmp_path):
    with mounted(tmp_path / "m", "50m") as remount:
        with small_disk(tmp_path / "m" / "d") as disk:
            disk.table("users", [ROW]).write(records(range(100)))
        remount("ro")
        for fresh in (True, False):
            with pytest.raises(DiskError, match="Read-only file system"):
                Disk(tmp_path / "m" / "d", cache_bytes=1 << 20, fresh=fresh)


def test_a_directory_that_is_lost_while_in_use_refuses_writes_and_reads_on(tmp_path):
    """As a mount that is gone: files that are open can be read, no new one can be made."""
    disk = Disk(tmp_path / "d", cache_bytes=1 << 20, threads=2, write_buffer_bytes=1 << 20)
    table = disk.table("users", [1000])

    def write(k):
        table.write(records(range(k * 500, (k + 1) * 500), seed=k, width=1000), held=0)

    write(0)
    table.flush()
    table.read(np.arange(500))
    (tmp_path / "d" / "rocksdb").rename(tmp_path / "elsewhere")
    with pytest.raises(DiskError, match=r"the disk below .*No such file") as caught:
        fill(lambda k: write(k + 1))
    assert str(tmp_path / "d") in str(caught.value)
    expected = as_dict(records(range(500 * k, 500 * (k + 1)), seed=k, width=1000) for k in range(len(table) // 500))
    assert as_dict(table.read(np.arange(60 * 500))) == expected
    with pytest.raises(DiskError):
        disk.close()


def test_a_table_that_a_sick_disk_did_not_drop_in_order_does_not_come_back(tmp_path):
    disk = Disk(tmp_path / "d", cache_bytes=1 << 20, threads=2, write_buffer_bytes=1 << 20)
    disk.table("users", [ROW]).write(records(range(100)))
    (tmp_path / "d" / "rocksdb").rename(tmp_path / "elsewhere")
    (tmp_path / "d" / "rocksdb").touch()  # no folder can be made there
    with pytest.raises(DiskError):
        disk.drop("users")
    with pytest.raises(DiskError):
        disk.table("users", [ROW])
    (tmp_path / "d" / "rocksdb").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "d" / "rocksdb")
    assert len(disk.table("users", [ROW])) == 0
    with pytest.raises(DiskError):
        disk.close()


def test_a_table_whose_folder_is_gone_can_be_dropped_and_made_anew(tmp_path):
    disk = Disk(tmp_path / "d", cache_bytes=1 << 20, threads=2, write_buffer_bytes=1 << 20)
    disk.table("users", [ROW]).write(records(range(100)))
    (tmp_path / "d" / "rocksdb").rename(tmp_path / "elsewhere")
    for seed in (1, 2):
        disk.drop("users")
        table = disk.table("users", [ROW])
        assert len(table) == 0
        table.write(records(range(50), seed=seed))
        table.flush()
        assert as_dict(table.read(np.arange(100))) == as_dict([records(range(50), seed=seed)])
    disk.close()


def test_a_file_that_vanished_is_a_disk_error(tmp_path):
    with small_disk(tmp_path) as disk:
        disk.table("users", [ROW]).write(records(range(1000)))
    for file in (tmp_path / "rocksdb").glob("*.sst"):
        file.unlink()
    with pytest.raises(DiskError, match="the disk below"):
        Disk(tmp_path, cache_bytes=1 << 20, fresh=False)


def test_rocksdbs_words_become_our_errors(tmp_path):
    full = disk_error(tmp_path, Exception("IO error: No space left on device: While appending to file: x.sst"))
    broken = disk_error(tmp_path, Exception("IO error: Input/output error: While pread offset 0 len 4096: x.sst"))
    assert isinstance(full, DiskFull)
    assert isinstance(broken, DiskError)
    for error in (full, broken):
        assert str(tmp_path) in str(error)
        assert "x.sst" in str(error)


def test_reads_while_another_thread_writes_and_discards(tmp_path):
    """Every row read is one that was written for that id, whole."""
    versions = [records(range(3000), seed=k) for k in range(4)]
    legal = [as_dict([version]) for version in versions]
    failures = []
    with small_disk(tmp_path) as disk:
        table = disk.table("users", [ROW])
        done = threading.Event()

        def read():
            try:
                while not done.is_set():
                    for id_, row in as_dict(table.read(np.arange(3000))).items():
                        assert any(row == rows[id_] for rows in legal)
            except Exception as error:  # noqa: BLE001  another thread's failure is this test's
                failures.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for k in range(24):
            table.write(versions[k % 4])
            if k % 5 == 4:
                table.discard(np.arange(0, 3000, 2))
        done.set()
        for reader in readers:
            reader.join()
        assert failures == []
        assert len(table) == 3000
