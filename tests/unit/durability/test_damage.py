"""Whatever happens to the bytes of a log: its records come back as they were, or an error says where it is damaged."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from crc32c import crc32c

from ps.durability.log.grammar import FORMAT, HEAD_BYTES, RECORD, RECORD_BYTES, first_of, pack_head, pack_record
from ps.durability.log.reader import End
from ps.errors import LogCorrupt
from tests.files import MemoryFiles
from tests.unit.durability.logs import AT, by_hand, opened, recovered, write

PAYLOADS = [b"", b"a", b"psRC" * 3, b"bc" * 20, bytes(64), b"d", b"ef" * 30]
SHARD = AT / "shard-0"


def small_log(together: bool = False) -> MemoryFiles:
    """Three segments: each write synced by itself, or all of a file at once."""
    files = MemoryFiles()
    log = opened(files, segment_bytes=130, start=by_hand)
    write(log, 1, PAYLOADS, together)
    files.kill()
    assert len(segments(files)) == 3
    return files


def segments(files: MemoryFiles) -> list[Path]:
    return [SHARD / name for name in files.names(SHARD) if first_of(name)]


def read(files: MemoryFiles) -> tuple[list[bytes], End] | None:
    """None: it is an error, which names the file and the byte."""
    try:
        return recovered(files)
    except LogCorrupt as error:
        assert re.search(r"/shard-0/\d{20}\.log(, byte [\d,]+)?: ", str(error)), error
        return None


@pytest.mark.parametrize("together", [False, True])
def test_a_byte_that_changed_is_never_a_wrong_record(together: bool) -> None:
    files = small_log(together)
    chance = random.Random(1)
    for path in segments(files):
        data = files.read(path, 0, 1 << 20)
        for at in range(len(data)):
            spoiled = bytearray(data)
            spoiled[at] ^= 1 << chance.randrange(8)
            files.spoil(path, bytes(spoiled))
            found = read(files)
            if found is not None:
                records, end = found
                assert path == segments(files)[-1], "only what a crash may leave is cut, and so in the last segment"
                assert records == PAYLOADS[: len(records)]
                assert end.cut_bytes or end.torn
                if not together:
                    assert len(records) == len(PAYLOADS) - 1, "what was synced before is not cut"
        files.spoil(path, data)
    assert read(files) is not None


@pytest.mark.parametrize("together", [False, True])
def test_a_log_that_was_cut_is_a_prefix(together: bool) -> None:
    files = small_log(together)
    for path in segments(files):
        data = files.read(path, 0, 1 << 20)
        for size in range(len(data)):
            files.spoil(path, data[:size])
            found = read(files)
            if path != segments(files)[-1]:
                assert found is None
            else:
                records, end = found or ([], End(0))
                assert PAYLOADS[: len(records)] == records
                assert 5 <= len(records) < len(PAYLOADS)
                assert end.size + end.cut_bytes == size or end.torn
        files.spoil(path, data)


def test_what_is_behind_a_torn_record_is_written_over() -> None:
    files = small_log()
    last = segments(files)[-1]
    whole = files.size(last)
    files.spoil(last, files.read(last, 0, whole)[:-1])
    log = opened(files, start=by_hand)
    assert log.stats()["nbytes"] == sum(map(files.size, segments(files)))
    write(log, 7, [b"again", b"more"])
    log.close()
    assert recovered(files)[0] == [*PAYLOADS[:6], b"again", b"more"]


def test_what_was_closed_or_opened_again_is_not_cut() -> None:
    for end in ("closed", "opened"):
        files = small_log()
        last = segments(files)[-1]
        log = opened(files, start=by_hand)
        if end == "closed":
            log.close()
        else:
            files.kill()
        data = bytearray(files.read(last, 0, 1 << 20))
        data[-1] ^= 1
        files.spoil(last, bytes(data))
        with pytest.raises(LogCorrupt, match="version 7 should be: there are later segments"):
            recovered(files)


def test_a_segment_that_is_missing_is_a_hole() -> None:
    for at, says in ((0, "version 1 is missing"), (1, r"begins with version \d, and the one before ends with")):
        files = small_log()
        files.remove(segments(files)[at])
        with pytest.raises(LogCorrupt, match=says):
            recovered(files)


def spoiled_head(change: Callable[[MemoryFiles], object]) -> MemoryFiles:
    files = small_log()
    change(files)
    return files


def test_another_shards_segment_is_refused() -> None:
    files = small_log()
    last = segments(files)[-1]
    first = first_of(last.name) or 0
    data = files.read(last, 0, 1 << 20)
    files.spoil(last, pack_head(3, first, 0) + data[HEAD_BYTES:])
    with pytest.raises(LogCorrupt, match=r"a log of shard 3, this is shard 0"):
        recovered(files)
    files.spoil(last, pack_head(0, first, 12345) + data[HEAD_BYTES:])
    with pytest.raises(LogCorrupt, match="another history"):
        recovered(files)
    files.spoil(last, pack_head(0, first + 1, 0) + data[HEAD_BYTES:])
    with pytest.raises(LogCorrupt, match="its name says"):
        recovered(files)


def test_a_record_that_skips_a_version_is_refused() -> None:
    files = small_log()
    last = segments(files)[-1]
    head, _ = pack_record(len(PAYLOADS) + 2, 0, [b"x"])
    at = files.size(last)
    files.spoil(last, files.read(last, 0, at) + head + b"x")
    with pytest.raises(LogCorrupt, match=rf"byte {at}: version 9 where 8 should be: records are missing"):
        recovered(files)


def test_what_was_not_synced_may_be_damaged_in_the_middle() -> None:
    """After a crash of the host a later record of one group may be there, and an earlier one not."""
    files = MemoryFiles()
    log = opened(files, start=by_hand)
    write(log, 1, [b"one", b"two"])
    write(log, 3, [b"three", b"four", b"five"], together=True)
    path = segments(files)[0]
    data = bytearray(files.read(path, 0, 1 << 20))
    at = data.index(b"three")
    data[at : at + 5] = bytes(5)
    files.kill()
    files.spoil(path, bytes(data))
    records, end = recovered(files)
    assert records == [b"one", b"two"]
    assert end.cut_bytes == 3 * RECORD_BYTES + len("threefourfive")
    at = data.index(b"two")
    data[at : at + 3] = bytes(3)
    files.spoil(path, bytes(data))
    with pytest.raises(LogCorrupt, match=rf"byte {at - RECORD_BYTES}: damaged .* version 2 was durable"):
        recovered(files)


def test_payloads_full_of_marks_do_not_hide_a_record() -> None:
    files = MemoryFiles()
    log = opened(files, start=by_hand)
    marks = RECORD * 200_000  # beyond a window
    write(log, 1, [b"one", marks, b"three"])
    files.kill()
    assert recovered(files)[0] == [b"one", marks, b"three"]
    path = segments(files)[0]
    data = bytearray(files.read(path, 0, 1 << 20))
    data[data.index(b"one")] ^= 1
    files.spoil(path, bytes(data))
    with pytest.raises(LogCorrupt, match="version 2 was durable"):
        recovered(files)


def test_a_later_format_is_named() -> None:
    files = small_log()
    first = segments(files)[0]
    data = files.read(first, 0, 1 << 20)
    head = data[:8] + (FORMAT + 1).to_bytes(2, "little") + data[10 : HEAD_BYTES - 4]
    files.spoil(first, head + crc32c(head).to_bytes(4, "little") + data[HEAD_BYTES:])
    with pytest.raises(LogCorrupt, match=r"byte 0: a log in format 2, this version reads 1"):
        recovered(files)
