"""The Criteo click logs (Kaggle's, the terabyte's day_0 to day_23), streamed: files may be larger than memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ps.errors import InvalidArgument
from ps.nn.batch import Batch, FeatureSpec
from worker.data.columns import Columns, rebatch
from worker.data.criteo_lines import line_blocks
from worker.data.criteo_parser import N_HEXES, N_INTEGERS, Parsed, parse
from worker.data.errors import MalformedFile, MalformedLine
from worker.data.files import check_readable

_LOG = logging.getLogger(__name__)
_SHOWN = 10
"""How many malformed lines are logged one by one; further ones are only counted."""
_JUDGED_AFTER = 10_000
"""How many lines of a file must be read before it may be refused for too many malformed ones; a shorter file is read to
its end."""
_FIELD_SHIFT = 40
"""An id is field << 40 | value: a value, missing included, has 33 bits."""


class Criteo:
    """A `Source` over one file or several, plain or gzip, read one after the other.

    dense: log(1 + max(integer, 0)), 0 where the field is empty. (So an empty field reads as an integer of 0 or less.)
    ids: the hex value with its field's number above it, so no two fields share an id and 26 tables or a single one
    both work; an empty field has an id of its own in each field.
    on_error: "skip" logs the first malformed lines with file and line number, leaves all of them out and counts them
    in `skipped`; "stop" raises `MalformedLine` at the first. Blank lines do not count.
    max_malformed: the largest share of a file's lines that is skipped; a file with more, or without a good line, raises
    `MalformedFile`. The first ten are always skipped, unless they are more than half.
    table: one table for all features; None gives each its own, C1 to C26.
    Raises `InvalidArgument` for no path, another `on_error` or a share out of [0, 1]. A file that cannot be read raises
    `UnreadableFile` when it is read, and in `check_files`.
    """

    name = "criteo"
    n_dense = N_INTEGERS
    len_rows: int | None = None

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        *,
        on_error: str = "skip",
        max_malformed: float = 0.01,
        table: str | None = None,
    ) -> None:
        if not 0 <= max_malformed <= 1:
            raise InvalidArgument(f"max_malformed is {max_malformed}; it is a share, from 0 to 1")
        if on_error not in ("skip", "stop"):
            raise InvalidArgument(f'on_error is {on_error!r}; choose "skip" or "stop"')
        self.paths = [Path(part) for part in ([path] if isinstance(path, str | Path) else path)]
        if not self.paths:
            raise InvalidArgument("no path; name at least one file")
        names = [f"C{field}" for field in range(1, N_HEXES + 1)]
        self.features = tuple(FeatureSpec(name, table or name) for name in names)
        self.skipped = 0
        """How many malformed lines the latest pass has left out so far."""
        self._first_skipped: MalformedLine | None = None
        self._stop = on_error == "stop"
        self._max_malformed = max_malformed

    def check_files(self) -> None:
        """Opens every file, before anything is launched for them. Raises `UnreadableFile`."""
        for path in self.paths:
            check_readable(path)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields all good lines of all files, in order. While it reads, it may raise `MalformedLine` if `on_error` is
        "stop", `MalformedFile` and `UnreadableFile`."""
        return rebatch(self._blocks(), batch_size, self.features)

    def windows(self) -> Mapping[str, slice]:
        """Returns None, because the length of the files is not known before they are read."""
        return {}

    def remarks(self) -> Sequence[str]:
        """Returns in words what the latest pass left out."""
        if self._first_skipped is None:
            return ()
        what = "line was" if self.skipped == 1 else "lines were"
        return (f"{self.skipped:,} malformed {what} skipped; the first: {self._first_skipped}",)

    def _blocks(self) -> Iterator[Columns]:
        self.skipped, self._first_skipped = 0, None
        for path in self.paths:
            yield from self._blocks_of(path)

    def _blocks_of(self, path: Path) -> Iterator[Columns]:
        lines = good = malformed = 0
        first: MalformedLine | None = None
        for block in line_blocks(path):
            parsed = parse(block)
            for line, reason in parsed.malformed:
                error = MalformedLine(path, lines + line + 1, reason)
                first = first or error
                self._report(error)
            lines += parsed.lines
            good += len(parsed.labels)
            malformed += len(parsed.malformed)
            if first is not None and good + malformed >= _JUDGED_AFTER:
                self._judge(first, good, malformed)
            yield _columns(parsed)
        if first is not None:
            self._judge(first, good, malformed)
        elif not good:
            raise MalformedFile(path, "has no lines, the file is empty: was it downloaded to its end?")

    def _judge(self, first: MalformedLine, good: int, malformed: int) -> None:
        lines = good + malformed
        if not good:
            raise MalformedFile(
                first.path, f"none of {lines:,} lines is in Criteo's format; line {first.line_number}: {first.reason}"
            )
        if malformed > max(self._max_malformed * lines, min(_SHOWN, lines // 2)):
            raise MalformedFile(
                first.path,
                f"{malformed:,} of the first {lines:,} lines are malformed, more than {self._max_malformed:.2%}; line "
                f"{first.line_number}: {first.reason}. Fix the file, or allow for a larger share (--max-malformed)",
            )

    def _report(self, malformed: MalformedLine) -> None:
        if self._stop:
            raise malformed
        self._first_skipped = self._first_skipped or malformed
        self.skipped += 1
        if self.skipped <= _SHOWN:
            _LOG.warning("skipped %s", malformed)


def _columns(parsed: Parsed) -> Columns:
    fields_F1 = np.arange(N_HEXES, dtype=np.int64)[:, np.newaxis]
    return Columns(_dense(parsed.integers), parsed.hexes | fields_F1 << _FIELD_SHIFT, parsed.labels)


def _dense(integers_BI: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Returns log(1 + max(x, 0)); `MISSING_INTEGER` is far below 0, so a missing value becomes 0 too."""
    return np.log1p(np.maximum(integers_BI, 0).astype(np.float32))
