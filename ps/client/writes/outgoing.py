"""Gradients on their way out: checked, summed by unique id, divided by shard, and written as blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ps.array_like import ArrayLike, as_rows
from ps.arrays import Flags, Rows
from ps.client.table_batch import TableBatch
from ps.client.writes.finite import check_finite
from ps.errors import InvalidArgument, NonFiniteGradient
from ps.kernels.index.unique import segment_sum
from ps.kernels.packing.packing import all_below
from ps.wire import blocks
from ps.wire.formats import TableFormat
from ps.wire.selected import PooledGradients, Selected


@dataclass(frozen=True)
class Outgoing:
    """One table's gradients of a push, in the order of its unique ids, and the precision in which they travel."""

    grads: Rows | Selected
    form: TableFormat
    important_U: Flags | None = None
    """Which rows are important; None: not known, then all count as important."""
    bags: Selected | None = None
    """Gradients of the table's bags, if it has any; then `grads` is a selection of rows. All of them are sent as
    important ones."""

    @classmethod
    def of(
        cls,
        table: TableBatch,
        grads: ArrayLike | Selected | PooledGradients,
        form: TableFormat,
        important_U: Flags | None = None,
    ) -> Outgoing:
        """Checks gradients and returns them as Outgoing. Raises InvalidArgument, DtypeMismatch, LengthMismatch,
        DimensionMismatch, NonFiniteGradient."""
        if table.bags is not None:
            bags, rows = _of_bags(table, grads, form)
            return cls(_selection(table, rows, form, important_U), form, important_U, bags)
        if isinstance(grads, PooledGradients):
            raise InvalidArgument(
                f"gradients of bags for table {table.config.name!r}: the step was prepared without bags of it"
            )
        if isinstance(grads, Selected):
            return cls(_selection(table, grads, form, important_U), form, important_U)
        return cls(_summed(table, grads, form, important_U), form, important_U)

    def by_shard(self, table: TableBatch) -> Outgoing:
        """Returns the same with arrays in the order of the shards' ids, as `blocks` takes it."""
        return self if isinstance(self.grads, Selected) else replace(self, grads=table.by_shard(self.grads))

    def bag_blocks(self, table: TableBatch, shard: int) -> list[blocks.EncodedBlock]:
        """Returns the blocks of gradients for one shard, of the bags that have an id on it."""
        if self.bags is None:
            return []
        bags_R = table.shard_bags[shard].bags_R
        return blocks.encode(_selected_of(self.bags, bags_R, table.sent), len(bags_R), self.form)

    def blocks(self, table: TableBatch, shard: int) -> list[blocks.EncodedBlock]:
        """Returns the blocks of gradients for one shard, of its rows."""
        where = table.split.of(shard)
        important_N = None if self.important_U is None else self.important_U[table.positions(shard)]
        if isinstance(self.grads, Selected):
            selected = _selected_of(self.grads, table.positions(shard), len(table.unique_U))
        elif self.form.exact:
            return blocks.whole(self.grads[where])
        else:
            rows_ND = blocks.masked(self.grads[where], self.form.mask_below)
            selected = Selected(None, rows_ND, elements=self.form.mask_below > 0)
        return blocks.encode(selected, where.stop - where.start, self.form, important_N)


def _of_bags(
    table: TableBatch, grads: ArrayLike | Selected | PooledGradients, form: TableFormat
) -> tuple[Selected, Selected]:
    """Checks and returns gradients of bags, and of rows."""
    what, dim = f"gradients for the bags of table {table.config.name!r}", table.config.dim
    rows = Selected(np.empty(0, np.int64), np.empty((0, dim), np.float32))
    if isinstance(grads, PooledGradients):
        bags, rows = grads.bags, grads.rows
    elif isinstance(grads, Selected):
        bags = grads
    else:
        grads_BD = blocks.masked(as_rows(grads, (table.sent,), dim, what), form.mask_below)
        bags = Selected(None, grads_BD, elements=form.mask_below > 0)
    bags = _checked(bags, np.arange(table.sent), dim, what, form, whose="bag")
    ids = 1 if table.bags is None else len(table.bags.positions_P)
    if not all_below(bags.grads_RD.reshape(-1), np.finfo(np.float32).max / np.float32(max(1, ids))):
        raise NonFiniteGradient(
            f"{what}: gradients of bags of {ids} ids could add up to more than float32 holds; "
            "nothing was sent (check the loss)"
        )
    return bags, rows


def _summed(table: TableBatch, grads: ArrayLike, form: TableFormat, important_U: Flags | None) -> Rows:
    """Returns gradients in the order of unique_U; those of duplicates are summed in the caller's order."""
    what = f"gradients for table {table.config.name!r}"
    grads_UD = as_rows(grads, table.shape, table.config.dim, what)
    if table.inverse_N is not None:
        grads_ND, grads_UD = grads_UD, np.empty((len(table.unique_U), table.config.dim), dtype=np.float32)
        segment_sum(grads_ND, table.inverse_N, grads_UD)
    check_finite(grads_UD, table.unique_U, what, form, important_U)
    return grads_UD


def _selection(table: TableBatch, selected: Selected, form: TableFormat, important_U: Flags | None) -> Selected:
    """Checks and returns a selection, whose rows are some of the unique ids as they were given."""
    what = f"gradients selected for table {table.config.name!r}"
    if table.inverse_N is not None:
        raise InvalidArgument(f"{what}: the step was prepared with an id twice; prepare unique ids, with counts")
    return _checked(selected, table.unique_U, table.config.dim, what, form, important_U)


def _checked(
    selected: Selected,
    ids_U: npt.NDArray[np.int64],
    dim: int,
    what: str,
    form: TableFormat,
    important_U: Flags | None = None,
    whose: str = "the row of id",
) -> Selected:
    rows_R, n = selected.rows_R, len(ids_U)
    grads_RD = as_rows(selected.grads_RD, (n if rows_R is None else len(rows_R),), dim, what)
    if rows_R is not None and not _ascending(rows_R, n):
        raise InvalidArgument(f"{what}: positions must ascend, each once, within [0, {n})")
    of = slice(None) if rows_R is None else rows_R
    check_finite(grads_RD, ids_U[of], what, form, None if important_U is None else important_U[of], whose)
    return Selected(rows_R, grads_RD, selected.elements)


def _selected_of(selected: Selected, positions: slice | npt.NDArray[np.int64], n: int) -> Selected:
    """Returns the part of a selection for one shard, whose n rows are at these positions."""
    if selected.rows_R is None:
        return Selected(None, selected.grads_RD[positions], selected.elements)
    if isinstance(positions, slice):
        return selected  # there is one shard
    at_U = np.full(n, -1, np.int64)
    at_U[selected.rows_R] = np.arange(len(selected.rows_R))
    at_S = at_U[positions]
    rows_R = np.flatnonzero(at_S >= 0)
    return Selected(rows_R, selected.grads_RD[at_S[rows_R]], selected.elements)


def _ascending(rows_R: npt.NDArray[np.int64], n: int) -> bool:
    """Returns whether these are positions below n, each once, in order."""
    return not len(rows_R) or bool(rows_R[0] >= 0 and rows_R[-1] < n and (np.diff(rows_R) > 0).all())
