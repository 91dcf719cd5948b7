"""Files in memory are like real ones, and lose what a host may lose."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps.runtime.files import File, Files, RealFiles
from tests.files import Crashed, MemoryFiles

names = st.sampled_from(["a", "b", "d/a", "d/b", "e/a", "a/b", "d"])
pieces = st.lists(st.binary(max_size=20), max_size=4)
calls = st.one_of(
    st.tuples(st.just("create"), names),
    st.tuples(st.just("append_to"), names),
    st.tuples(st.just("read"), names, st.integers(0, 9), st.integers(0, 30)),
    st.tuples(st.just("read_into"), names, st.integers(0, 9), st.integers(0, 30)),
    st.tuples(st.just("size"), names.filter(lambda name: name != "d")),
    st.tuples(st.just("same"), names, names),
    st.tuples(st.just("remove_folder"), st.sampled_from(["d", "e", "a"])),
    st.tuples(st.just("truncate"), names, st.integers(0, 15)),
    st.tuples(st.just("rename"), names, names),
    st.tuples(st.just("link"), names, names),
    st.tuples(st.just("remove"), names),
    st.tuples(st.just("names"), names),
    st.tuples(st.just("make_folder"), st.sampled_from(["d", "e"])),
    st.tuples(st.just("sync_folder"), st.just("d")),
    st.tuples(st.just("write"), pieces),
    st.tuples(st.just("sync")),
)


class Driven:
    """Does the same to any files, and says what comes of it."""

    def __init__(self, files: Files, root: Path) -> None:
        self.files, self.root = files, root
        self.open: File | None = None

    def do(self, call: str, *arguments: object) -> object:
        try:
            return self._do(call, *(self.root / each if isinstance(each, str) else each for each in arguments))
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    def _do(self, call: str, *arguments: object) -> object:
        if call in ("write", "sync"):
            return None if self.open is None else getattr(self.open, call)(*arguments)
        if call == "read_into":
            buffer = bytearray(arguments[2])
            n = self.files.read_into(arguments[0], arguments[1], memoryview(buffer))
            return bytes(buffer[:n])
        result = getattr(self.files, call)(*arguments)
        if call not in ("create", "append_to"):
            return result
        if self.open is not None:
            self.open.close()
        self.open = result
        return None


def is_odd(call: tuple[object, ...]) -> bool:
    """What differs by operating system, and is done by nobody: folders under other names, and in place of files."""
    return call[0] in ("rename", "link", "remove") and "d" in call[1:]


IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A file system that syncs at once."""


@settings(max_examples=60, deadline=None)
@given(st.lists(calls.filter(lambda call: not is_odd(call)), max_size=25))
def test_both_are_the_same_in_plain_use(calls: list[tuple[object, ...]]) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        memory, real = MemoryFiles(), Driven(RealFiles(), Path(folder))
        memory.make_folder(Path("/x"))
        model = Driven(memory, Path("/x"))
        for call in [("make_folder", "d"), *calls]:
            assert real.do(*call) == model.do(*call), call
        if real.open is not None:
            real.open.close()


def test_many_pieces_are_written_in_order(tmp_path: Path) -> None:
    pieces = [bytes([k % 251]) * (k % 7) for k in range(5000)]
    file = RealFiles().create(tmp_path / "a")
    file.write(pieces)
    file.sync()
    file.close()
    assert (tmp_path / "a").read_bytes() == b"".join(pieces)


def test_what_the_system_takes_in_parts_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take less than it is given: where it is interrupted, or beyond 2 GiB."""
    whole = b"abcdefghijklmnopqrstuvw"
    monkeypatch.setattr(os, "writev", lambda file, pieces: os.write(file, b"".join(pieces)[:4]))
    file = RealFiles().create(tmp_path / "a")
    file.write([whole[:3], whole[3:4], b"", whole[4:15], whole[15:]])
    file.close()
    assert (tmp_path / "a").read_bytes() == whole


@pytest.mark.parametrize("make", [lambda _: MemoryFiles(), lambda _: RealFiles()], ids=["memory", "real"])
def test_a_lock_is_held_by_one(make: Callable[[object], Files], tmp_path: Path) -> None:
    files = make(None)
    files.make_folder(tmp_path)
    unlock = files.lock(tmp_path / "LOCK")
    with pytest.raises(BlockingIOError):
        files.lock(tmp_path / "LOCK")
    unlock()
    files.lock(tmp_path / "LOCK")()


def crashed(seed: int, synced: bool, folder_synced: bool) -> MemoryFiles:
    files = MemoryFiles(random.Random(seed))
    files.make_folder(Path("/d"))
    files.sync_folder(Path("/"))
    file = files.create(Path("/d/a"))
    file.write([b"one"])
    if synced:
        file.sync()
    if folder_synced:
        files.sync_folder(Path("/d"))
    file.write([b"two"])
    with pytest.raises(Crashed):
        files.crash()
    with pytest.raises(Crashed):
        file.write([b"three"])
    files.restart()
    return files


def test_a_crash_takes_what_was_not_synced() -> None:
    both = [crashed(seed, True, True).read(Path("/d/a"), 0, 99) for seed in range(40)]
    assert all(data[:3] == b"one" for data in both)
    assert {len(data) for data in both} == {3, 4, 5, 6}
    only_the_folder = {crashed(seed, False, True).size(Path("/d/a")) for seed in range(40)}
    assert only_the_folder == set(range(7))
    only_the_file = {tuple(crashed(seed, True, False).names(Path("/d"))) for seed in range(40)}
    assert only_the_file == {(), ("a",)}


def test_a_sync_that_follows_a_failed_one_keeps_nothing() -> None:
    kept = set()
    for seed in range(40):
        files = MemoryFiles(random.Random(seed))
        file = files.create(Path("/a"))
        files.sync_folder(Path("/"))
        file.write([b"one"])
        files.before = failing("sync")
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        files.before = lambda _call, _path: None
        file.sync()
        with pytest.raises(Crashed):
            files.crash()
        files.restart()
        kept.add(files.read(Path("/a"), 0, 9))
    assert kept == {b"\0\0\0"}, "its length is durable, its bytes are not"


def failing(call: str) -> Callable[[str, Path], None]:
    def before(called: str, path: Path) -> None:
        if called == call:
            raise OSError(errno.EIO, "Input/output error", str(path))

    return before


def test_a_full_disk_takes_a_part() -> None:
    files = MemoryFiles(room=5)
    file = files.create(Path("/a"))
    file.write([b"abc"])
    with pytest.raises(OSError, match="No space left"):
        file.write([b"defg"])
    assert files.read(Path("/a"), 0, 99) == b"abcde"
