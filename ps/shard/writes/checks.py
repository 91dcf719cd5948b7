"""Whether a request makes sense, before anything is done for it."""

from __future__ import annotations

from collections.abc import Sequence

from ps.errors import DuplicateIds, InvalidArgument, LengthMismatch, StepNotFound
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
        resolved.table.check(n if part.rows_R is None else len(part.rows_R), part.blocks)
        if part.positives_N is not None and len(part.positives_N) != len(resolved.ids.ids_N):
            raise LengthMismatch(
                f"table {part.table!r}: {len(part.positives_N)} positives for {len(resolved.ids.ids_N)} ids"
            )
