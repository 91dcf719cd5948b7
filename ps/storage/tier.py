"""What tiers have in common: the layout of a row, rows on their way from one tier to another, and the protocol.

A row's residence may change at any time and its bytes go along unchanged, so what moves is bytes: `Records`. A tier
gives and takes them in batches; ids are unique in a batch. It knows nothing of the other tiers, of policy or of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Ids
from ps.counting import counter


@dataclass(frozen=True)
class RowLayout:
    """A row is its value and, side by side with it, the optimizer's state: float32 [dim + state_width]."""

    dim: int
    state_width: int

    @property
    def width(self) -> int:
        """Floats of a row."""
        return self.dim + self.state_width

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * 4


@dataclass(frozen=True)
class Records:
    """Rows as they lie in a tier, with their statistics."""

    ids_N: Ids
    rows_NB: npt.NDArray[np.uint8]
    """[n, bytes of a row]: all of one precision, which their length tells."""
    scores_N: npt.NDArray[np.float32]
    """Decayed importance as of the row's last push."""
    stamps_N: npt.NDArray[np.uint32]
    """When that push was."""

    def __len__(self) -> int:
        return len(self.ids_N)

    @property
    def statistics_N2(self) -> npt.NDArray[np.uint32]:  # noqa: N802  an array, so its name carries its shape
        """(score's bits, stamp), as `ps.kernels.ranking.score` has them."""
        return np.stack([np.ascontiguousarray(self.scores_N).view(np.uint32), self.stamps_N], axis=1)


def where(records: Records, chosen_N: Flags) -> Records:
    """Some of the records."""
    if chosen_N.all():
        return records
    return Records(
        records.ids_N[chosen_N], records.rows_NB[chosen_N], records.scores_N[chosen_N], records.stamps_N[chosen_N]
    )


def piece(records: Records, start: int, end: int) -> Records:
    """Records [start, end), which are not copied."""
    part = slice(start, end)
    return Records(records.ids_N[part], records.rows_NB[part], records.scores_N[part], records.stamps_N[part])


def joined(parts: Sequence[Records]) -> Records:
    """One after the other; rows of one length, and at least one part."""
    return Records(
        np.concatenate([part.ids_N for part in parts]),
        np.concatenate([part.rows_NB for part in parts]),
        np.concatenate([part.scores_N for part in parts]),
        np.concatenate([part.stamps_N for part in parts]),
    )


def by_length(parts: Iterable[Records]) -> list[Records]:
    """One element for each length of row."""
    found: dict[int, list[Records]] = {}
    for records in parts:
        found.setdefault(records.rows_NB.shape[1], []).append(records)
    return [some[0] if len(some) == 1 else joined(some) for some in found.values()]


@dataclass
class Traffic:
    """What has come out of one table on disk, and gone into it, since it was opened."""

    rows_read: int = counter("Rows read from disk.", metric="ps_disk_rows_read")
    rows_written: int = counter("Rows written to disk.", metric="ps_disk_rows_written")
    bytes_read: int = counter("Bytes of rows read from disk, headers included.", "bytes", "ps_disk_read_bytes")
    bytes_written: int = counter("Bytes of rows written to disk, headers included.", "bytes", "ps_disk_written_bytes")


class Tier(Protocol):
    """Rows by id. One suite, tests/conformance, holds for every implementation."""

    def __len__(self) -> int:
        """Rows held."""

    def read(self, ids_N: Ids) -> list[Records]:
        """The rows of those ids that are here, in any order; one element for each length of row that occurs.

        Raises CorruptRow, which has the sound rows, where what is here is not what was written.
        """

    def write(self, records: Records) -> None:
        """Takes rows in, also over older ones of the same id. All of them, or it raises and has changed nothing."""

    def discard(self, ids_N: Ids) -> None:
        """Drops rows; ids without one are left out."""

    def memory_usage(self) -> dict[str, int]:
        """Bytes of RAM by purpose."""

    def close(self) -> None:
        """Gives everything back."""


class LowerTier(Tier, Protocol):
    """A tier below RAM, as `ps.storage.residence.store` needs it: the disk's, or a dict in a test.

    Any thread may read, write and discard; calls for one id that write or discard come from one at a time.
    """

    @property
    def traffic(self) -> Traffic:
        """What has come and gone so far."""

    def read(self, ids_N: Ids, check: Callable[[], None] = lambda: None) -> list[Records]:
        """Reads as `Tier.read` does. What `check` raises, which is called every so often, ends it."""

    def write(self, records: Records, held: int | None = None) -> None:
        """Writes as `Tier.write` does. `held`: how many of the ids have a row here already; None: it is looked up."""

    def discard(self, ids_N: Ids, held: int | None = None) -> None:
        """Drops rows as `Tier.discard` does. `held` as for `write`."""

    def partitions(self, first: int, end: int) -> list[Records]:
        """Returns the rows of partitions [first, end), as `read` does."""

    def count_held(self, ids_N: Ids) -> int:
        """Returns how many of the ids have a row here, be it one that cannot be read."""
