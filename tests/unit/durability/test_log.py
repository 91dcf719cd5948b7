"""The log of a shard: when a write is durable, what refuses one, and where the files end."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import numpy as np
import pytest

from ps.durability.log.folder import Folder
from ps.durability.log.log import Mode
from ps.errors import DiskError, InternalError, LogCorrupt, LogFailed, ResourceExhausted
from ps.runtime.files import RealFiles
from tests.clocks import ByHand
from tests.files import MemoryFiles
from tests.unit.durability.logs import AT, Bytes, by_hand, no_sync, opened, recovered, write


def test_a_write_is_durable_when_the_mode_says_so() -> None:
    calls: list[str] = []
    for mode in Mode:
        files = MemoryFiles()
        log = opened(files, mode, start=by_hand)
        log.append(1, Bytes(b"a"))
        wait = log.durable(1)
        assert not wait.done()
        calls.clear()
        files.before = lambda call, _path: calls.append(f"{call} {wait.done()}")  # noqa: B023  it is of this turn
        log.write_group()
        assert wait.result(0) is None
        assert calls == (["write False"] if mode is Mode.INTERVAL else ["write False", "sync False"])
        assert log.durable(1).done()
        assert log.synced == (0 if mode is Mode.INTERVAL else 1)
        log.sync()
        assert log.synced == 1
        log.close()


def test_those_who_wait_are_answered_by_version() -> None:
    log = opened(MemoryFiles(), start=by_hand)
    waits = [log.durable(version) for version in (3, 1, 2)]
    write(log, 1, [b"a", b"b"], together=True)
    assert [wait.done() for wait in waits] == [False, True, True]
    write(log, 3, [b"c"])
    assert waits[0].done()
    log.close()


def test_threads_append_and_wait(tmp_path: Path) -> None:
    log = opened(RealFiles(), Mode.SYNC, tmp_path, segment_bytes=4000)
    array = np.arange(100, dtype=np.int64).view(np.uint8).data
    appending, done = threading.Lock(), []

    def run(k: int) -> None:
        for _ in range(10):
            with appending:
                version = len(done) + 1
                done.append(version)
                log.append(version, Bytes(b"%d" % version, array))
            log.durable(version).result(20)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats, files = log.stats(), list(tmp_path.glob("shard-0/*.log"))
    log.close()
    records, end = recovered(RealFiles(), tmp_path)
    assert records == [b"%d" % version + bytes(array) for version in range(1, 41)]
    assert stats["records"] == 40
    assert stats["groups"] <= 40
    assert stats["segments"] == len(files) == len(end.segments) - 1 >= 5, "the last is for whoever opens it"
    assert stats["nbytes"] == sum(path.stat().st_size for path in files)
    assert stats["fsync_s"] > 0


def test_interval_syncs_by_itself(tmp_path: Path) -> None:
    log = opened(RealFiles(), Mode.INTERVAL, tmp_path, interval_s=0.001)
    log.append(1, Bytes(b"a"))
    log.durable(1).result(10)
    for _ in range(10_000):
        if log.synced == 1:
            break
        threading.Event().wait(0.001)
    assert log.synced == 1
    log.close()


def test_the_interval_is_of_the_clock_that_the_log_is_given(tmp_path: Path) -> None:
    clock = ByHand()
    log = opened(RealFiles(), Mode.INTERVAL, tmp_path, interval_s=1000, clock=clock)
    log.append(1, Bytes(b"a"))
    log.durable(1).result(10)
    for _ in range(10_000):
        if log.synced == 1:
            break
        clock.now += 1000
        threading.Event().wait(0.001)
    assert log.synced == 1
    log.close()


def test_a_log_goes_on_where_it_ended() -> None:
    files = MemoryFiles()
    for first in (1, 3, 5):
        log = opened(files, segment_bytes=100, start=by_hand)
        write(log, first, [b"a" * first, b"b" * first])
        log.close()
    assert recovered(files)[0] == [b"a", b"b", b"aaa", b"bbb", b"aaaaa", b"bbbbb"]


def test_versions_come_in_order() -> None:
    log = opened(MemoryFiles(), start=by_hand)
    with pytest.raises(InternalError, match="version 2 was to be logged behind version 0"):
        log.append(2, Bytes(b"a"))
    log.close()


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_log_that_failed_acknowledges_nothing_more(call: str) -> None:
    files = MemoryFiles()
    log = opened(files, start=by_hand)
    write(log, 1, [b"one"])
    told: list[object] = []
    log.when_failed = lambda: told.append(log.failed)

    def before(called: str, path: Path) -> None:
        if called == call:
            files.before = lambda _call, _path: None  # the next one would succeed
            raise OSError(errno.EIO, "Input/output error", str(path))

    files.before = before
    log.append(2, Bytes(b"two"))
    wait = log.durable(2)
    assert not log.write_group()
    with pytest.raises(LogFailed, match=r"shard-0 failed \(OSError: .*Input/output.*look at its disk, and start it"):
        wait.result(0)
    log.append(3, Bytes(b"three"))
    for version in (2, 3):
        with pytest.raises(LogFailed):
            log.durable(version).result(0)
    with pytest.raises(LogFailed):
        log.check()
    with pytest.raises(LogFailed):
        log.sync()
    log.durable(1).result(0)
    assert told == [log.failed]
    log.close()
    assert told == [log.failed]
    assert recovered(files)[0][:1] == [b"one"]
    if call == "sync":
        assert recovered(files)[0] == [b"one"], "the next process is not to believe what the system remembers"


def test_a_repeat_is_not_told_that_what_was_cut_back_is_durable() -> None:
    """With `interval` a write was, until the sync failed."""
    files = MemoryFiles()
    log = opened(files, Mode.INTERVAL, start=by_hand)
    write(log, 1, [b"one"])
    log.sync()
    write(log, 2, [b"two"])
    log.durable(2).result(0)

    files.before = no_sync
    with pytest.raises(LogFailed):
        log.sync()
    log.write_group()
    log.durable(1).result(0)
    with pytest.raises(LogFailed):
        log.durable(2).result(0)
    log.close()
    assert recovered(files)[0] == [b"one"]


def test_a_full_disk_fails_the_log_and_leaves_a_log() -> None:
    files = MemoryFiles(room=400)
    log = opened(files, start=by_hand)
    log.append(1, Bytes(b"a" * 200))
    log.append(2, Bytes(b"b" * 200))
    waits = [log.durable(1), log.durable(2)]
    log.write_group()
    for wait in waits:
        with pytest.raises(LogFailed, match="No space left"):
            wait.result(0)
    log.close()
    records, end = recovered(files)
    assert records == [b"a" * 200]
    assert end.cut_bytes > 0


def test_what_waits_is_bounded() -> None:
    log = opened(MemoryFiles(), start=by_hand, most_waiting_bytes=100)
    for version in (1, 2):
        log.check()
        log.append(version, Bytes(b"x" * 60))
    with pytest.raises(ResourceExhausted, match="120 bytes of writes wait") as caught:
        log.check()
    assert caught.value.retry_after_s
    log.write_group()
    log.check()
    log.close()


def test_a_log_has_a_bound_on_disk() -> None:
    log = opened(MemoryFiles(), start=by_hand, max_bytes=300, segment_bytes=100)
    write(log, 1, [b"x" * 60, b"y" * 60])
    log.check()
    write(log, 3, [b"z" * 60])
    with pytest.raises(ResourceExhausted, match=r"may have 300 \(log.max_bytes\): make a checkpoint"):
        log.check()
    log.truncate(2)
    log.check()
    log.close()


def test_a_log_is_truncated_behind_a_version() -> None:
    files = MemoryFiles()
    log = opened(files, segment_bytes=100, start=by_hand)
    write(log, 1, [b"x" * 60] * 6)
    assert (log.stats()["segments"], log.stats()["oldest_version"]) == (6, 1)
    log.truncate(3)
    stats = log.stats()
    assert (stats["segments"], stats["oldest_version"]) == (3, 4)
    assert stats["nbytes"] == sum(files.size(AT / "shard-0" / name) for name in files.names(AT / "shard-0"))
    log.truncate(99)
    assert log.stats()["segments"] == 1, "the one that is written"
    log.close()
    assert recovered(files, after=5)[1].version == 6
    with pytest.raises(LogCorrupt, match="version 1 is missing"):
        recovered(files)


def test_a_log_that_is_shorter_than_the_checkpoint_goes_on_behind_it() -> None:
    files = MemoryFiles()
    log = opened(files, start=by_hand)
    write(log, 1, [b"a", b"b"])
    log.close()
    for after in (7, 8):
        log = opened(files, after=7, start=by_hand)
        write(log, after + 1, [b"c%d" % after])
        log.close()
    assert recovered(files, after=7)[0] == [b"c7", b"c8"]


def test_one_process_has_a_log(tmp_path: Path) -> None:
    log = opened(RealFiles(), path=tmp_path)
    with pytest.raises(DiskError, match=r"another process writes the log in .*: end it first, or give"):
        Folder(RealFiles(), tmp_path, 0)
    Folder(RealFiles(), tmp_path, 1).close()
    log.close()
    opened(RealFiles(), path=tmp_path).close()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DiskError, match=r"the log in .*/file/shard-0 cannot be used: .*Look at its mount"):
        Folder(RealFiles(), tmp_path / "file", 0)


def test_closing_writes_and_syncs_what_was_appended() -> None:
    files = MemoryFiles()
    log = opened(files, Mode.INTERVAL, start=by_hand)
    log.append(1, Bytes(b"a"))
    wait = log.durable(1)
    log.close()
    log.close()
    wait.result(0)
    assert log.synced == 1
    with pytest.raises(LogFailed, match="closed"):
        log.check()
