"""One story of a log, and a crash at every call that it makes to its files."""

from __future__ import annotations

import errno
import random
from itertools import pairwise
from pathlib import Path

import pytest

from ps.durability.log.counters import LogCounters
from ps.durability.log.folder import Folder
from ps.durability.log.log import Mode, WriteLog
from ps.durability.log.reader import End
from ps.durability.log.segments import Queued, Segments
from ps.errors import LogFailed
from tests.files import Crashed, MemoryFiles
from tests.unit.durability.logs import AT, Bytes, by_hand, no_sync, opened, recovered, write

PAYLOADS = [bytes([k]) * (17 * k % 90) for k in range(1, 25)]


class Story:
    """Groups of writes over several segments; the process is killed once, and goes on."""

    def __init__(self, files: MemoryFiles, mode: Mode) -> None:
        self.files, self.mode = files, mode
        self.promised = self.checkpoint = 0
        self.log: WriteLog | None = None

    def run(self) -> None:
        self.open()
        self.write(1, 3, 8)
        self.files.kill()
        self.open()
        self.write(8, 14)
        assert self.log is not None
        self.checkpoint = self.log.synced
        self.log.truncate(self.checkpoint)
        self.write(14, 16, 24)

    def open(self) -> None:
        self.log = opened(self.files, self.mode, segment_bytes=150, start=by_hand)
        self.note()

    def write(self, *firsts: int) -> None:
        """Writes groups: from each of these versions to the next, the last one not included."""
        assert self.log is not None
        for first, end in pairwise(firsts):
            for version in range(first, end):
                self.log.append(version, Bytes(PAYLOADS[version]))
            wait = self.log.durable(end - 1)
            self.log.write_group()
            self.note()
            if wait.exception(0) is not None:
                raise Crashed

    def note(self) -> None:
        assert self.log is not None
        self.promised = max(self.promised, self.log.synced)


def goes_on(files: MemoryFiles, mode: Mode, after: int, records: list[bytes]) -> None:
    log = opened(files, mode, after=after, segment_bytes=150, start=by_hand)
    write(log, after + len(records) + 1, [b"more" * 9] * 6)
    log.close()
    assert recovered(files, after=after)[0] == records + [b"more" * 9] * 6


@pytest.mark.parametrize("mode", Mode)
def test_a_crash_at_any_call_keeps_what_was_synced(mode: Mode) -> None:
    whole = MemoryFiles()
    Story(whole, mode).run()
    assert whole.calls > 40
    for at in range(1, whole.calls + 2):
        for seed in range(2):
            files = MemoryFiles(random.Random(f"{at} {seed}"))
            files.crash_at = at
            story = Story(files, mode)
            try:
                story.run()
                files.crash()
            except Crashed:
                pass
            if story.log is not None:
                story.note()
            files.restart()
            records, end = recovered(files, after=story.checkpoint)
            assert records == PAYLOADS[story.checkpoint + 1 : end.version + 1]
            assert end.version >= story.promised, (at, seed)
            goes_on(files, mode, story.checkpoint, records)


def test_what_a_killed_process_wrote_is_synced_by_the_next() -> None:
    for seed in range(10):
        files = MemoryFiles(random.Random(seed))
        write(opened(files, Mode.INTERVAL, start=by_hand), 1, [b"one", b"two"])
        files.kill()
        assert opened(files, Mode.INTERVAL, start=by_hand).synced == 2
        with pytest.raises(Crashed):
            files.crash()
        files.restart()
        assert recovered(files)[0] == [b"one", b"two"]


def test_a_head_is_durable_before_its_first_group_fails() -> None:
    for seed in range(10):
        files = MemoryFiles(random.Random(seed))
        log = opened(files, start=by_hand)
        log.append(1, Bytes(b"lost"))

        def before(called: str, path: Path, files: MemoryFiles = files) -> None:
            if called == "sync":
                files.before = lambda _call, _path: None
                raise OSError(errno.EIO, "Input/output error", str(path))

        files.before = before
        assert not log.write_group()
        files.kill()
        write(opened(files, start=by_hand), 1, [b"kept"])
        files.kill()
        opened(files, start=by_hand)
        with pytest.raises(Crashed):
            files.crash()
        files.restart()
        assert recovered(files)[0] == [b"kept"]


def test_a_folder_is_synced_by_whoever_finds_it() -> None:
    """Whoever made it may have been killed before that."""
    files = MemoryFiles()
    files.make_folder(AT / "shard-0")
    calls: list[tuple[str, Path]] = []
    files.before = lambda call, path: calls.append((call, path))
    opened(files, start=by_hand).close()
    assert ("sync_folder", AT) in calls


def test_a_file_is_synced_before_the_next_begins() -> None:
    files = MemoryFiles()
    log = opened(files, segment_bytes=100, start=by_hand)
    calls: list[str] = []
    files.before = lambda call, _path: calls.append(call)
    for version in (1, 2):
        log.append(version, Bytes(b"x" * 80))
    log.write_group()
    assert calls == ["write", "sync", "create", "write", "sync", "sync_folder", "write", "sync"]
    log.close()


def test_nothing_is_written_or_synced_after_a_failure() -> None:
    for call in ("write", "sync"):
        files = MemoryFiles()
        folder = Folder(files, AT, 0)
        segments = Segments(folder, End(0), 1 << 20, LogCounters())
        segments.write([Queued(1, [b"one"], 3)])

        def before(called: str, path: Path, failing: str = call) -> None:
            if called == failing:
                raise OSError(errno.EIO, "Input/output error", str(path))

        files.before = before
        with pytest.raises(OSError, match="Input/output"):
            segments.write([Queued(2, [b"two"], 3)]) if call == "write" else segments.sync()
        files.before = lambda _call, _path: None
        size = files.size(folder.segment(1))
        with pytest.raises(OSError, match=r"the log has failed before: .*Input/output"):
            segments.write([Queued(2, [b"two"], 3)])
        with pytest.raises(OSError, match="failed before"):
            segments.sync()
        assert (segments.synced, files.size(folder.segment(1))) == (0, size)


def test_a_sync_that_failed_beside_the_writer_ends_it() -> None:
    """With `interval` another thread syncs: the writer hears of it before it writes."""
    files = MemoryFiles()
    log = opened(files, Mode.INTERVAL, start=by_hand)
    log.append(1, Bytes(b"one"))
    log.write_group()

    files.before = no_sync
    with pytest.raises(LogFailed):
        log.sync()
    log.append(2, Bytes(b"two"))
    assert not log.write_group()
    with pytest.raises(LogFailed):
        log.durable(2).result(0)
    log.close()
    assert recovered(files)[0] == []
