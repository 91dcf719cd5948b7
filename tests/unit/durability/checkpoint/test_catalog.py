"""Names, services that share a folder, what goes and what stays, and the stores that files are in."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest

from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.listing import LEFTOVER_S
from ps.durability.checkpoint.manifest import SCRATCH, Routing, stem_of
from ps.errors import CheckpointCorrupt, ConfigError, DiskError, InvalidArgument, NotFound
from tests.clocks import ByHand
from tests.files import MemoryFiles
from tests.unit.durability.checkpoint.parts import Row, Shard, make, manifest_of, rows_in, write_part

_numbers = itertools.count()
ONE = Shard(rows={1: Row(1.0, 0)})


@pytest.fixture(params=["local", "remote"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "there") if request.param == "local" else f"memory://catalog-{next(_numbers)}"


def test_names_sort_by_age_whatever_the_clock_does(url: str) -> None:
    clock = ByHand(1_764_547_380.0)
    there = Checkpoints(url, clock=clock)
    names = [there.new_name(), there.new_name()]
    for now in (clock.now + 5, clock.now - 100, clock.now + 6):
        clock.now = now
        names.append(there.new_name())
    assert names == [
        "20251201T000300Z-000001",
        "20251201T000300Z-000002",
        "20251201T000305Z-000001",
        "20251201T000305Z-000002",
        "20251201T000306Z-000001",
    ]
    assert not there.list()
    assert there.newest() is None


def test_services_share_a_folder_and_leave_each_other_alone(url: str) -> None:
    clock = ByHand()
    mine, others = (Checkpoints(url, clock=clock, service=name) for name in ("mine", "others"))
    first = make(others, ONE, service="others")
    begun = others.new_name()
    write_part(others, begun, ONE)
    last = make(mine, ONE, service="mine")
    clock.now += 10 * LEFTOVER_S
    assert mine.prune(0) == [last]
    assert [each.name for each in mine.list()] == [first]
    assert mine.newest() is None
    newest = Checkpoints(url).newest()
    assert newest is not None
    assert newest.name == first
    assert others.prune(1) == [begun]
    assert rows_in(others, first) == ONE.rows


def test_what_was_not_completed_goes_when_a_newer_one_is_there_or_after_a_while(url: str) -> None:
    clock = ByHand()
    there = Checkpoints(url, clock=clock, service="mine")
    abandoned = there.new_name()
    write_part(there, abandoned, ONE)
    assert there.prune(1) == [], "it may be under way"
    kept = make(there, ONE, service="mine")
    under_way = there.new_name()
    write_part(there, under_way, ONE)
    assert there.prune(1) == [abandoned]
    clock.now += LEFTOVER_S + 2
    assert there.prune(1) == [under_way]
    assert [each.name for each in there.list()] == [kept]


def test_what_a_reader_that_was_killed_has_left_goes_after_a_while(tmp_path: Path) -> None:
    clock = ByHand()
    there = Checkpoints(str(tmp_path), clock=clock)
    left = tmp_path / f"{SCRATCH}{stem_of(clock.now)}-abc"
    left.mkdir()
    (left / "000001.sst").touch()
    there.prune(1)
    assert left.exists()
    clock.now += LEFTOVER_S + 2
    there.prune(1)
    assert not left.exists()


def test_what_others_build_on_stays(url: str) -> None:
    there = Checkpoints(url)
    shard = Shard(now=1, rows={1: Row(1.0, 0)})
    base = make(there, shard)
    shard.version, shard.since, shard.removed_since = 2, 1, 1
    above = make(there, shard, base=base)
    with pytest.raises(InvalidArgument, match=f"{above} builds on"):
        there.remove(base)
    assert there.prune(1) == []
    assert [(each.name, each.base, each.shards, each.tables) for each in there.list()] == [
        (base, None, 1, ("t",)),
        (above, base, 1, ("t",)),
    ]
    there.remove(above)
    there.remove(base)
    assert not there.list()
    there.remove(base)


def test_a_manifest_that_cannot_be_read_is_left_out_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = Checkpoints(str(tmp_path))
    first, second = make(there, ONE), make(there, ONE)
    path = tmp_path / second / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 2'))
    with caplog.at_level(logging.WARNING):
        newest = there.newest()
    assert newest is not None
    assert newest.name == first
    assert str(path) in caplog.text
    with pytest.raises(CheckpointCorrupt, match=str(path)):
        there.manifest(second)


def test_what_is_asked_for_and_is_not_there(url: str) -> None:
    there = Checkpoints(url)
    name = make(there, ONE)
    for wrong in ("", "..", "20251201T000300Z-1", f"{name}/../{name}", f"{name}\n"):
        with pytest.raises(InvalidArgument, match="is no name of a checkpoint"):
            there.source(wrong, 0)
    with pytest.raises(NotFound, match=f"no checkpoint 20251201T000300Z-000001; it has: {name}"):
        there.manifest("20251201T000300Z-000001")
    with pytest.raises(CheckpointCorrupt, match=r"shard-5/part\.json, byte 0: the file is missing"):
        there.source(name, 5)
    with pytest.raises(InvalidArgument, match="with a manifest of"):
        there.complete(there.new_name(), there.manifest(name))


def test_a_manifest_has_one_part_of_each_shard(url: str) -> None:
    there = Checkpoints(url)
    name = there.new_name()
    parts = [write_part(there, name, ONE, number) for number in range(2)]
    whole = manifest_of(name, parts)
    there.complete(name, whole)
    assert there.manifest(name) == whole
    assert there.manifest(name).routing == Routing(2)


def test_a_url_of_a_file_is_a_path(tmp_path: Path) -> None:
    name = make(Checkpoints(f"file://{tmp_path}/a"), ONE)
    assert rows_in(Checkpoints(str(tmp_path / "a")), name) == ONE.rows
    assert Checkpoints(f"file://{tmp_path}/a").url == str(tmp_path / "a")


def test_a_url_that_nobody_can_read_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"nosuch://there: .*memory"):
        Checkpoints("nosuch://there")

    def missing(_url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ConfigError, match=r"s3://bucket/there needs a package .*Install s3fs"):
        Checkpoints("s3://bucket/there")


def test_what_a_driver_raises_is_an_error_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Checkpoints("memory://fails")
    name = make(there, ONE)

    def fails(*_: object, **__: object) -> Any:
        raise RuntimeError("access denied")

    for call in ("ls", "info", "cat_file"):
        with monkeypatch.context() as patch:
            patch.setattr(fsspec.implementations.memory.MemoryFileSystem, call, fails)
            with pytest.raises(DiskError, match=r"memory://fails .* RuntimeError: access denied"):
                rows_in(there, name) if call != "ls" else there.list()
    with monkeypatch.context() as patch:
        patch.setattr(fsspec.implementations.memory.MemoryFileSystem, "open", fails)
        with pytest.raises(DiskError, match="access denied"):
            make(there, ONE)


def test_verify_tells_how_far_it_is(url: str) -> None:
    there = Checkpoints(url)
    shard = Shard(now=1, rows={1: Row(1.0, 0)})
    base = make(there, shard)
    shard.version, shard.since, shard.removed_since = 2, 1, 1
    name = make(there, shard, base=base)
    told: list[tuple[int, int]] = []
    assert not there.verify(name, lambda done, all_: told.append((done, all_)))
    total = sum(each.nbytes for each in there.list())
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert told == sorted(told)


@pytest.fixture
def rocksdb(tmp_path: Path) -> Path:
    folder = tmp_path / "rocksdb"
    folder.mkdir()
    (folder / "000001.sst").write_bytes(b"one" * 1000)
    (folder / "CURRENT").write_bytes(b"first")
    return folder


def test_files_of_the_disk_that_the_base_has_take_no_room_again(url: str, tmp_path: Path, rocksdb: Path) -> None:
    """Also where the name is that of another file; and they are there when the base's folder is not looked at."""
    there = Checkpoints(url)
    names: list[str] = []
    for content in ((b"one", b"first"), (b"one", b"second"), (b"two", b"third")):
        (rocksdb / "000001.sst").unlink()  # RocksDB's own would be the same inode; an equal one will do
        (rocksdb / "000001.sst").write_bytes(content[0] * 1000)
        (rocksdb / "CURRENT").write_bytes(content[1])
        name, base = there.new_name(), names[-1] if names else None
        part = write_part(there, name, Shard(version=len(names) + 1), 0, base, rocksdb)
        there.complete(name, manifest_of(name, [part], base))
        names.append(name)
        (out := tmp_path / name).mkdir()
        assert there.source(name, 0).put_disk(out)
        assert (out / "000001.sst").read_bytes() == content[0] * 1000
        assert (out / "CURRENT").read_bytes() == content[1]
        assert not there.verify(name)
    sizes = [there.manifest(name).nbytes for name in names]
    assert sizes[1] < sizes[0] - 2900
    assert sizes[2] > sizes[1] + 2900


def test_linked_files_are_those_of_the_disk_and_others_are_copies(tmp_path: Path, rocksdb: Path) -> None:
    there = Checkpoints(str(tmp_path / "there"))
    name = there.new_name()
    there.complete(name, manifest_of(name, [write_part(there, name, ONE, 0, None, rocksdb)]))
    stored = tmp_path / "there" / name / "shard-0" / "disk"
    assert (stored / "000001.sst").samefile(rocksdb / "000001.sst")
    assert not (stored / "CURRENT").samefile(rocksdb / "CURRENT")
    (out := tmp_path / "out").mkdir()
    there.source(name, 0).put_disk(out)
    assert (out / "000001.sst").samefile(rocksdb / "000001.sst")
    assert not (out / "CURRENT").samefile(stored / "CURRENT")


def test_files_are_copied_where_there_are_no_links(tmp_path: Path) -> None:
    files = MemoryFiles()
    files.make_folder(Path("/rocksdb"))
    file = files.create(Path("/rocksdb/000001.sst"))
    file.write([b"one"])

    def no_links(call: str, _path: Path) -> None:
        if call == "link":
            raise OSError(18, "Invalid cross-device link")

    files.before = no_links
    there = Checkpoints("/there", files)
    name = there.new_name()
    there.complete(name, manifest_of(name, [write_part(there, name, ONE, 0, None, Path("/rocksdb"))]))
    files.make_folder(Path("/out"))
    assert there.source(name, 0).put_disk(Path("/out"))
    assert files.read(Path("/out/000001.sst"), 0, 99) == b"one"
    assert not there.verify(name)
