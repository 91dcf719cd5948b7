"""Checks whether a request makes sense, before any work is done for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ps.arrays import Rows
from ps.config import TableConfig
from ps.errors import DimensionMismatch, DuplicateIds, InvalidArgument, LengthMismatch, StepNotFound
from ps.kernels.index.unique import has_duplicates
from ps.quoting import shown
from ps.shard.requests import Gradients, TableIds
from ps.shard.steps.steps import Resolved


def check_tables(ids: Sequence[TableIds]) -> None:
    """Raises InvalidArgument unless each table is named once."""
    names = [part.table for part in ids]
    if len(set(names)) != len(names):
        raise InvalidArgument(f"a table is named twice in one request: {shown(names)}")


def check_unique(ids: Sequence[TableIds]) -> None:
    """Raises InvalidArgument, LengthMismatch or DuplicateIds unless each table is named once, and each id in it."""
    check_tables(ids)
    for part in ids:
        if part.counts_N is not None and len(part.counts_N) != len(part.ids_N):
            raise LengthMismatch(f"table {part.table!r}: {len(part.counts_N)} counts for {len(part.ids_N)} ids")
        if has_duplicates(part.ids_N):
            raise DuplicateIds(f"table {part.table!r}: an id occurs twice; sum its gradients and send it once")


def check_rows(config: TableConfig, n: int, blocks: Sequence[Rows]) -> None:
    """Raises DimensionMismatch or LengthMismatch unless the blocks are gradients or values for n ids of this table."""
    for block_ND in blocks:
        if block_ND.shape[1] != config.dim:
            raise DimensionMismatch(
                f"table {config.name!r} has dim {config.dim}, the rows sent have {block_ND.shape[1]}"
            )
    rows = sum(len(block_ND) for block_ND in blocks)
    if rows != n:
        raise LengthMismatch(f"table {config.name!r}: {rows} rows sent for {n} ids")


def check_reports(config: TableConfig, n: int, scores_N: Rows) -> None:
    """Raises InvalidArgument or LengthMismatch unless these are scores for n ids of a table that takes them."""
    if not config.importance.external:
        raise InvalidArgument(
            f"table {config.name!r} gives reported scores no weight: create it with importance=Importance(external=...)"
        )
    if len(scores_N) != n:
        raise LengthMismatch(f"table {config.name!r}: {len(scores_N)} scores sent for {n} ids")
    if not (np.isfinite(scores_N) & (scores_N >= 0)).all():
        raise InvalidArgument(f"table {config.name!r}: scores must be finite and not negative")


def check_gradients(tables: Sequence[Resolved], gradients: Sequence[Gradients]) -> None:
    """Raises LengthMismatch or DimensionMismatch unless there is a gradient for every id that should have one; and
    StepNotFound for gradients of bags that are not those of rows yet."""
    asked, sent = [r.ids.table for r in tables], [part.table for part in gradients]
    if asked != sent:
        raise LengthMismatch(f"the step has tables {shown(asked)}, the gradients are for {shown(sent)}")
    for resolved, part in zip(tables, gradients, strict=True):
        if part.bags is not None:
            raise StepNotFound(
                f"table {part.table!r}: its step was not here when the gradients of bags came: send the ids"
            )
        n = len(resolved.ids.ids_N)
        if part.rows_R is not None and part.ids != n:
            raise LengthMismatch(f"table {part.table!r}: gradients selected of {part.ids} rows sent for {n} ids")
        check_rows(resolved.table.config, n if part.rows_R is None else len(part.rows_R), part.blocks)
        if part.positives_N is not None and len(part.positives_N) != len(resolved.ids.ids_N):
            raise LengthMismatch(
                f"table {part.table!r}: {len(part.positives_N)} positives for {len(resolved.ids.ids_N)} ids"
            )
