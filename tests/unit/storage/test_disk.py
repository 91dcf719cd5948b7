"""Directories, tables, reopening, counting. What every tier does is in tests/conformance."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ps.errors import ConfigError, DiskError
from ps.storage.disk.codec import PARTITIONS
from ps.storage.disk.database import FORMAT, MARK, Disk

from .disks import ROW, as_dict, records, small_disk


def test_what_was_closed_in_order_can_be_opened_again(tmp_path):
    written = records(np.arange(-500, 500))
    with small_disk(tmp_path / "d") as disk:
        disk.table("a", [ROW]).write(written)
        disk.table("b", [ROW]).write(records([7], seed=1))
    with small_disk(tmp_path / "d", fresh=False) as disk:
        table = disk.table("a", [ROW])
        assert len(table) == 1000
        assert as_dict(table.read(written.ids_N)) == as_dict([written])
        assert as_dict(disk.table("b", [ROW]).partitions(0, PARTITIONS)) == as_dict([records([7], seed=1)])
        assert len(disk.table("c", [ROW])) == 0


def test_a_fresh_one_is_empty(tmp_path):
    with small_disk(tmp_path) as disk:
        disk.table("a", [ROW]).write(records(range(10)))
    with small_disk(tmp_path) as disk:
        assert len(disk.table("a", [ROW])) == 0
        assert disk.table("a2", [ROW]).read(np.arange(10)) == []


def test_a_directory_that_is_not_ours_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for fresh in (True, False):
        with pytest.raises(ConfigError, match=r"not empty and was not made by embedding-ps") as caught:
            Disk(tmp_path, cache_bytes=1 << 20, fresh=fresh)
        assert str(tmp_path) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_others_put_into_our_directory_stays(tmp_path):
    with small_disk(tmp_path):
        (tmp_path / "note.txt").write_text("mine")
    with small_disk(tmp_path):
        assert (tmp_path / "note.txt").read_text() == "mine"


def test_a_directory_in_use_is_refused(tmp_path):
    with small_disk(tmp_path) as disk:
        table = disk.table("a", [ROW])
        table.write(records([1]))
        with pytest.raises(ConfigError, match="in use by another shard"):
            Disk(tmp_path, cache_bytes=1 << 20)
        assert len(table.read(np.array([1]))) == 1
    with small_disk(tmp_path):
        pass


def test_another_format_is_refused_unless_it_may_be_emptied(tmp_path):
    (tmp_path / MARK).write_text("embedding-ps disk, format 99\n")
    with pytest.raises(ConfigError, match="format 99"):
        Disk(tmp_path, cache_bytes=1 << 20, fresh=False)
    with small_disk(tmp_path):
        assert (tmp_path / MARK).read_bytes() == FORMAT


def test_a_path_that_cannot_be_a_directory_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="file"):
        Disk(tmp_path / "file", cache_bytes=1 << 20)


def test_a_dropped_table_is_gone_and_its_name_free(tmp_path):
    with small_disk(tmp_path) as disk:
        disk.table("a", [ROW]).write(records(range(10)))
        other = disk.table("b", [ROW])
        other.write(records(range(5)))
        disk.drop("a")
        disk.drop("never seen")
        assert len(disk.table("a", [50])) == 0
        assert len(other) == 5
        assert sum(map(len, other.read(np.arange(9)))) == 5


def test_the_log_of_rocksdb_does_not_begin_anew_however_many_tables_were_made(tmp_path):
    """A new file of it begins with the settings of every table so far: with a bound that these exceed, at each line."""
    with small_disk(tmp_path) as disk:
        for _ in range(150):
            disk.table("gone", [ROW])
            disk.drop("gone")
        assert [file.name for file in tmp_path.rglob("LOG*")] == ["LOG"]


def test_a_table_may_be_called_default(tmp_path):
    with small_disk(tmp_path) as disk:
        disk.table("default", [ROW]).write(records([1]))
        disk.drop("default")
        assert len(disk.table("default", [ROW])) == 0


def test_who_knows_how_many_rows_are_held_spares_the_lookup(tmp_path):
    with small_disk(tmp_path) as disk:
        table = disk.table("a", [ROW])
        table.write(records(range(10)), held=0)
        table.write(records(range(5, 15)), held=5)
        assert len(table) == 15
        table.discard(np.arange(12, 20), held=3)
        assert len(table) == 12
        assert sorted(as_dict(table.read(np.arange(30)))) == list(range(12))


def test_partitions_give_everything_in_batches_of_one_length(tmp_path):
    with small_disk(tmp_path) as disk:
        table = disk.table("a", [ROW, 40])
        long, short = records(range(1000)), records(range(1000, 1700), width=40)
        table.write(long)
        table.write(short)
        assert as_dict(table.partitions(0, PARTITIONS)) == as_dict([long, short])
        halves = [table.partitions(0, 100), table.partitions(100, PARTITIONS)]
        assert as_dict(halves[0] + halves[1]) == as_dict([long, short])
        assert not as_dict(halves[0]).keys() & as_dict(halves[1]).keys()
        assert all(halves)


def test_counters_count_rows_and_bytes_with_their_headers(tmp_path):
    with small_disk(tmp_path) as disk:
        table = disk.table("a", [ROW])
        table.write(records(range(10)))
        table.read(np.arange(5, 30))
        assert (table.traffic.rows_written, table.traffic.bytes_written) == (10, 10 * (ROW + 13))
        assert (table.traffic.rows_read, table.traffic.bytes_read, table.read_errors) == (5, 5 * (ROW + 13), 0)


def test_memory_and_disk_are_accounted(tmp_path):
    with small_disk(tmp_path) as disk:
        table = disk.table("a", [ROW])
        table.write(records(range(20_000)))
        assert disk.memory_usage()["memtables"] > 0
        table.flush()
        table.read(np.arange(20_000))
        usage = disk.memory_usage()
        assert set(usage) == {"block_cache", "memtables", "table_readers"}
        assert 0 < usage["block_cache"] < 3 << 20
        assert usage["memtables"] < 2 << 20
        assert disk.bytes_on_disk() > 20_000 * ROW


def test_a_process_that_dies_leaves_a_directory_that_can_be_used_again(tmp_path):
    script = (
        "import os, pathlib, sys; from tests.unit.storage.disks import *;"
        "disk = Disk(pathlib.Path(sys.argv[1]), 1 << 20); disk.table('a', [ROW]).write(records(range(9))); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    with small_disk(tmp_path, fresh=False) as disk:
        assert len(disk.table("a", [ROW])) == 0  # it was in the write buffers, and there is no log
