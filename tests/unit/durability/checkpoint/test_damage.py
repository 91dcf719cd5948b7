"""Files whose bytes have changed, or are missing: an error that names file and byte, and never other rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.manifest import Manifest
from ps.errors import CheckpointCorrupt
from tests.files import MemoryFiles
from tests.unit.durability.checkpoint.parts import Row, Shard, make, records_of, rows_in, write_part

NAMES = re.compile(r"/there/[^ ]*, byte [\d,]+: ")


class Kept:
    """Two checkpoints, the second of which builds on the first, and what they have."""

    def __init__(self) -> None:
        self.files = MemoryFiles()
        self.there = Checkpoints("/there", self.files)
        shard = Shard(now=1, rows={id_: Row(float(id_), 0) for id_ in range(3)})
        self.first = make(self.there, shard)
        shard.version, shard.removed_since, shard.since = 2, 1, 1
        shard.rows[9] = Row(9.5, 1)
        self.second = make(self.there, shard, base=self.first)
        self.rows = shard.rows
        self.whole = self.read()

    def read(self) -> tuple[Manifest, Manifest, str, dict[int, Row]]:
        source = self.there.source(self.second, 0)
        state = {name: np.array(value).tolist() for name, value in source.state().items()}
        manifests = self.there.manifest(self.first), self.there.manifest(self.second)
        return *manifests, repr(state), rows_in(self.there, self.second)

    def paths(self) -> Iterator[Path]:
        for name in (self.first, self.second):
            folder = Path("/there") / name
            yield folder / "manifest.json"
            yield from (folder / "shard-0" / each for each in self.files.names(folder / "shard-0"))

    def data(self, path: Path) -> bytes:
        return self.files.read(path, 0, 1 << 20)

    def check(self, path: Path, data: bytes, changed: bytes) -> None:
        """With other bytes in that file."""
        self.files.spoil(path, changed)
        try:
            assert self.read() == self.whole
            read = None
        except CheckpointCorrupt as error:
            read = error
        problems = self.there.verify(self.second)
        assert problems
        assert all(str(path) in str(problem) or path.name == "part.json" for problem in problems)
        if read is not None:
            assert NAMES.match(str(read)), read
            assert str(path) in str(read)
        else:  # nobody has looked at these bytes: the older state, say
            assert path.parent.parent.name == self.first
        self.files.spoil(path, data)


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_every_byte_that_changes_is_found(step: int) -> None:
    kept = Kept()
    for path in kept.paths():
        data = kept.data(path)
        for at in range(0, len(data), 1 if path.name.startswith("rows") else step):
            kept.check(path, data, data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
    assert kept.read() == kept.whole
    assert not kept.there.verify(kept.second)


def test_every_file_that_is_cut_short_or_longer_is_found() -> None:
    kept = Kept()
    for path in kept.paths():
        data = kept.data(path)
        for size in {0, 1, 8, len(data) // 2, len(data) - 8, len(data) - 1}:
            kept.check(path, data, data[:size])
        kept.check(path, data, data + b"\0")


def test_every_file_that_is_missing_is_found() -> None:
    for k in range(len([*Kept().paths()])):
        kept = Kept()
        path = [*kept.paths()][k]
        kept.files.remove(path)
        assert kept.there.verify(kept.second)
        if path.name in ("manifest.json", "state"):
            continue
        with pytest.raises(CheckpointCorrupt, match=re.escape(str(path)) + ".*missing"):
            kept.read()


def test_a_checkpoint_of_which_a_file_is_missing_is_not_completed() -> None:
    from tests.unit.durability.checkpoint.parts import manifest_of

    files = MemoryFiles()
    there = Checkpoints("/there", files)
    name = there.new_name()
    part = write_part(there, name, Shard(rows={1: Row(1.0, 0)}))
    for change in (lambda path: files.spoil(path, b"short"), files.remove):
        change(Path("/there") / name / "shard-0" / "rows-0000")
        with pytest.raises(CheckpointCorrupt, match="rows-0000, byte"):
            there.complete(name, manifest_of(name, [part]))
    assert not there.list()
    other = write_part(there, name, Shard(version=2, rows={1: Row(1.0, 0)}))
    with pytest.raises(CheckpointCorrupt, match="do all hosts see the same folder"):
        there.complete(name, manifest_of(name, [part]))
    there.complete(name, manifest_of(name, [other]))
    assert [each.name for each in there.list()] == [name]


def test_a_length_that_is_damaged_takes_no_memory() -> None:
    """The largest numbers that fit, with a checksum that fits too."""
    import struct

    from crc32c import crc32c

    from ps.durability.checkpoint.reading import Reading
    from ps.durability.checkpoint.rows_file import blocks_of
    from ps.durability.checkpoint.state_file import read_state
    from ps.durability.checkpoint.stores.store import store_of

    files = MemoryFiles()
    files.make_folder(Path("/there"))
    store = store_of("/there", files)

    def reading(data: bytes) -> Reading:
        store.put("file", data)
        return Reading(store, "file", len(data))

    for n, width in ((1, 0xFFFFFFFF), (0xFFFFFFFF, 1), (0xFFFFFFFF, 0xFFFFFFFF), (0, 8), (1, 1 << 20)):
        rest = struct.pack("<IIII", 0, n, width, 0) + bytes(200)
        data = b"psRB" + struct.pack("<I", crc32c(rest)) + rest
        with pytest.raises(CheckpointCorrupt, match="byte 0: "):
            list(blocks_of(reading(data), 0))
    told = (
        b'[["a", {"array": "<f8", "shape": [99999999999, 99999999999], "crc": 0}]]',
        b'[["a", {"array": "<f8", "shape": [-1], "crc": 0}]]',
        b'[["a", {"array": "O", "shape": [1], "crc": 0}]]',
        b'[["a", {"array": "<f8"}]]',
        b'["a"]',
        b"[" * 100_000,
        b"7",
    )
    for names in told:
        for length in (len(names), 1 << 60):
            head = struct.pack("<8sQII", b"psSTATE1", length, crc32c(names), 0)
            with pytest.raises(CheckpointCorrupt, match="byte "):
                read_state(reading(head + names))


def test_rows_of_another_table_are_not_taken() -> None:
    files = MemoryFiles()
    there = Checkpoints("/there", files)
    name = make(there, Shard(rows={1: Row(1.0, 0)}))
    records, marks_N = records_of({1: Row(1.0, 0)})
    from ps.durability.checkpoint.rows_file import pack_block

    files.spoil(Path("/there") / name / "shard-0" / "rows-0000", b"".join(pack_block(1, records, marks_N)))
    with pytest.raises(CheckpointCorrupt, match="table number 1 is where number 0 should be"):
        rows_in(there, name)
