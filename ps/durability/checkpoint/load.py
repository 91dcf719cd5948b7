"""Loads a table of a checkpoint into a shard that is not one of those that have saved it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows, Scores
from ps.config import TableConfig, TensorTrain
from ps.durability.checkpoint.elsewhere import Elsewhere
from ps.durability.checkpoint.rows_file import ahead
from ps.errors import ConfigError, DimensionMismatch, ResourceExhausted
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.shard import Shard, TableIds
from ps.shard.caller import PATIENT
from ps.shard.operations.write import carry_out
from ps.shard.writes.load import Load
from ps.storage.tier import Records, joined, piece

BATCH_BYTES = 8 << 20
"""About how many bytes of rows are loaded by one write."""
ROOM_S = 120.0
"""Seconds for which a write waits for rows to go to disk."""


def load_table(
    shard: Shard,
    saved: Elsewhere,
    into: str,
    wanted_P: npt.NDArray[np.bool_],
    values_only: bool = False,
    told: Callable[[int], None] = lambda rows: None,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Gives a table of a shard the rows of a saved one that are in some partitions, bool [4096]; returns how many.

    Rows that the table has are written over, others stay. Rows keep their optimizer state, and their order by
    importance; they count as pushed now where rows expire. `values_only`: rows have values alone; the state of new ones
    begins. The optimizer's count of pushes, for Adam's bias correction, is the largest of the shards that have saved
    the table, if it is more than here. What was counted of ids without a row (`admission`) is not saved so. `told`: is
    called with how many rows are done.

    Raises DimensionMismatch and ConfigError where the rows do not fit the table, TableNotFound, what `saved` raises,
    and what a write does; what has been loaded by then stays.
    """
    check_fits(saved.config, shard.core.table(into).config, values_only)
    dim, pushes, done = saved.config.dim, 0 if values_only else saved.pushes(), 0
    for records in ahead(_batches(saved.rows(wanted_P))):
        rows_NW = np.ascontiguousarray(records.rows_NB).view(np.float32)
        if values_only:
            rows_NW = np.ascontiguousarray(rows_NW[:, :dim])
        _load(shard, TableIds(into, records.ids_N), rows_NW, records.scores_N, pushes, clock)
        done += len(records)
        told(done)
    return done


def load_rows(shard: Shard, ids: TableIds, rows_NW: Rows, scores_N: Scores, pushes: int = 0) -> int:
    """Sets rows and their importance, creating rows, see `ps.shard.writes.load`; returns the version. Ids must be
    unique. It is not in the ledger: a repeat loads them again. Raises what the write does."""
    shard.engine.drive(carry_out(shard.core, Load(ids, rows_NW, scores_N, pushes), PATIENT))
    version = shard.version
    shard.core.wait_until_durable(version)
    return version


def check_fits(saved: TableConfig, here: TableConfig, values_only: bool = False) -> None:
    """Raises DimensionMismatch or ConfigError where rows of a saved table are not those of a table here."""
    if saved.dim != here.dim:
        raise DimensionMismatch(f"table {here.name!r} has dim {here.dim}, and the saved {saved.name!r} has {saved.dim}")
    for config, where in ((here, "here"), (saved, "in the checkpoint")):
        if isinstance(config.cold, TensorTrain):
            raise ConfigError(
                f"table {config.name!r} {where} has tensor-train cores: {saved.name!r} was saved with cold="
                f"{_kind(saved)}, {here.name!r} has cold={_kind(here)}. Such a table comes back only whole, under its "
                "name, into a new service with the number of shards that has saved it"
            )
    if not values_only and saved.optimizer.kind != here.optimizer.kind:
        raise ConfigError(
            f"table {here.name!r} is trained by {here.optimizer.kind}, and the saved {saved.name!r} by "
            f"{saved.optimizer.kind}: restore values only, or create the table with that optimizer"
        )


def _kind(config: TableConfig) -> str:
    return "None" if config.cold is None else type(config.cold).__name__


def _batches(pages: Iterator[Records]) -> Iterator[Records]:
    """Yields the records, about BATCH_BYTES at a time."""
    waiting: list[Records] = []
    nbytes = 0
    for page in pages:
        step = max(BATCH_BYTES // page.rows_NB.shape[1], 1)
        for start in range(0, len(page), step):
            waiting.append(piece(page, start, start + step))
            nbytes += waiting[-1].rows_NB.nbytes
            if nbytes >= BATCH_BYTES:
                yield joined(waiting)
                waiting, nbytes = [], 0
    if waiting:
        yield joined(waiting)


def _load(shard: Shard, ids: TableIds, rows_NW: Rows, scores_N: Scores, pushes: int, clock: Clock) -> None:
    """Loads rows. Where RAM is full it waits until others have gone to disk."""
    ends_at = clock.monotonic() + ROOM_S
    while True:
        try:
            load_rows(shard, ids, rows_NW, scores_N, pushes)
            return
        except ResourceExhausted as error:
            if error.retry_after_s is None or clock.monotonic() >= ends_at:
                raise
            clock.sleep(error.retry_after_s)
