"""Reads a log from front to end. It changes nothing.

What it believes: a record whose bytes are those that were written, and that follows the one before it. At the end of
the last segment there may be a torn record, which a crash has left: it is no part of the log. Anywhere else, or where
a later record says that it was durable, damage is LogCorrupt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from ps.durability.log.folder import Folder, translated
from ps.durability.log.grammar import FORMAT, HEAD_BYTES, RECORD_BYTES, Head, read_head
from ps.durability.log.window import Window
from ps.errors import LogCorrupt

_REMEDY = "Bring the file back from a copy, or restore a checkpoint; what the log has from there on cannot be replayed"


class Record(NamedTuple):
    """One write of the log."""

    version: int
    payload: memoryview


@dataclass(frozen=True)
class End:
    """Where a log ends."""

    version: int
    """The version that its last whole record makes."""
    crc: int = 0
    """The crc of that record, or of the last one that was read; what comes next names it."""
    segments: tuple[int, ...] = ()
    """The first version of each segment that has whole records, or a whole head. Later ones are torn."""
    size: int = 0
    """Whole bytes of the last of them."""
    torn: tuple[int, ...] = ()
    """Segments of which nothing is whole."""
    cut_bytes: int = 0
    """Bytes behind the last whole record: of a write that a crash has interrupted."""


class Reader:
    """The records of a log behind a version, for one pass."""

    def __init__(self, folder: Folder, after: int = 0) -> None:
        """Reads from `after` + 1 on: what a checkpoint has is not needed."""
        self.folder = folder
        self._after = after
        self._end = End(after)
        self._next: int | None = None
        """The version of the record that comes next; None: no segment has been opened."""
        self.ended = False

    @property
    def end(self) -> End:
        """Where the log ends, once all records have been read."""
        if not self.ended:
            raise ValueError("the end of a log is known when all of its records have been read")
        return self._end

    def __iter__(self) -> Iterator[Record]:
        """Yields the records. Raises LogCorrupt and DiskError."""
        firsts = self.folder.segments()
        behind = [first for first in firsts if first <= self._after + 1]
        if firsts and not behind:
            raise LogCorrupt(
                f"{self.folder.segment(firsts[0])}: the log begins with version {firsts[0]:,}, and version "
                f"{self._after + 1:,} is missing: bring back the segments before, or a newer checkpoint"
            )
        firsts = firsts[len(behind) - 1 :] if behind else firsts  # what is older was to be removed
        for first in firsts:
            yield from self._segment(first, is_last=first == firsts[-1])
        if self._next is not None and self._next <= self._after:
            self._end = replace(self._end, segments=())  # what comes next does not follow what is there
        self.ended = True

    def _segment(self, first: int, is_last: bool) -> Iterator[Record]:
        path = self.folder.segment(first)
        with translated(path):
            window = Window(self.folder.files, path)
            if not self._check_head(first, window, is_last):
                return
            at = HEAD_BYTES
            while at < window.size:
                found = window.record(at)
                if found is None:
                    self._check_torn(window, at, is_last)
                    break
                head, payload = found
                if head.version != self._next:
                    raise LogCorrupt(
                        f"{path}, byte {at:,}: version {head.version:,} where {self._next:,} should be: records are "
                        f"missing. {_REMEDY}"
                    )
                at += RECORD_BYTES + head.length
                self._next = head.version + 1
                self._end = replace(self._end, crc=head.crc, size=at)
                if head.version > self._after:
                    self._end = replace(self._end, version=head.version)
                    yield Record(head.version, payload)

    def _check_head(self, first: int, window: Window, is_last: bool) -> bool:
        """Returns whether the segment has a head; it may lack one where a crash has interrupted its making."""
        path = window.path
        head = read_head(window.read(0, HEAD_BYTES))
        if head is None:
            self._check_torn(window, 0, is_last)
            self._end = replace(self._end, torn=(first,))
            return False
        if (wrong := self._misfit(head, first)) is not None:
            raise LogCorrupt(f"{path}, byte 0: {wrong}. {_REMEDY}")
        segments = (*self._end.segments, first)
        self._end = replace(self._end, segments=segments, size=HEAD_BYTES, crc=head.before)  # none before may be read
        self._next = first
        return True

    def _misfit(self, head: Head, first: int) -> str | None:
        """Says why a segment does not belong here."""
        if head.format != FORMAT:
            return f"a log in format {head.format}, this version reads {FORMAT}"
        if head.shard != self.folder.shard:
            return f"a log of shard {head.shard}, this is shard {self.folder.shard}"
        if head.first != first:
            return f"the segment begins with version {head.first:,}, and its name says {first:,}"
        if self._next is not None and first != self._next:
            return f"the segment begins with version {first:,}, and the one before ends with {self._next - 1:,}"
        if self._next is not None and head.before != self._end.crc:
            return "the segment does not follow the one before: it is of another history"
        return None

    def _check_torn(self, window: Window, at: int, is_last: bool) -> None:
        """Raises LogCorrupt unless a crash may have left what stands at this byte and behind it."""
        expected = self._after + 1 if self._next is None else self._next
        if not is_last:
            why = "there are later segments, so this one was whole"
        elif (promised := window.durable_behind(at)) >= expected:
            why = f"a later record says that version {promised:,} was durable"
        else:
            self._end = replace(self._end, cut_bytes=window.size - at)
            return
        raise LogCorrupt(f"{window.path}, byte {at:,}: damaged where version {expected:,} should be: {why}. {_REMEDY}")
