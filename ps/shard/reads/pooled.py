"""Sums bags for a trainer, and turns the gradients of bags into gradients of rows.

Rows are gathered by the engine, which alone may, and summed by the thread that sends them. Gradients of bags are spread
to rows by the thread that received them. So the engine does for a bag's ids what it does for any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ps.arrays import Flags, Rows
from ps.errors import DimensionMismatch, LengthMismatch, NonFiniteGradient
from ps.kernels.rows import bags as kernels
from ps.kernels.rows.rows import all_finite
from ps.shard.caller import Caller
from ps.shard.requests import BagGradients, Gradients, TableIds
from ps.shard.steps.steps import Resolved

TAKEN_FLOATS = 1 << 18
"""How many floats are read between two checks whether the caller still waits."""


class Sums:
    """The sums of one table's bags, read as rows are by a pull; but any thread may call `read`."""

    def __init__(self, resolved: Resolved, caller: Caller) -> None:
        """Takes the rows as they are now. Runs on the engine thread. Raises Unavailable if the caller goes
        meanwhile."""
        bags = resolved.ids.bags
        assert bags is not None
        self._bags = bags
        rows, dim = len(resolved.ids.ids_N), resolved.table.config.dim
        self._rows_UD = np.empty((rows, dim), np.float32)
        step = max(TAKEN_FLOATS // dim, 1)
        for start in range(0, rows, step):
            caller.check()
            end = min(rows, start + step)
            resolved.read(start, end, self._rows_UD[start:end])

    def read(self, start: int, end: int, out_ND: Rows) -> None:
        """Writes the sums of bags [start, end)."""
        kernels.pool(self._rows_UD, self._bags.starts_K[start : end + 1], self._bags.positions_P, out_ND)


def pull_bytes(ids: TableIds, dim: int) -> int:
    """Returns the bytes that a pull of these holds until it is sent."""
    sums = 0 if ids.bags is None else len(ids.bags)
    return 4 * dim * (len(ids.ids_N) + sums)


def spread(ids: Sequence[TableIds], gradients: Sequence[Gradients]) -> list[Gradients]:
    """Turns gradients of bags into gradients of their rows, added to the gradients that rows were sent. Returns other
    gradients, and those of tables that are not among `ids`, as they are.

    It goes in the order of the bags, so the same push gives the same bytes. A row that is in none of the bags that are
    sent has no gradient of them. Raises LengthMismatch, DimensionMismatch, and NonFiniteGradient where a sum is not
    finite.
    """
    by_name = {part.table: part for part in ids}
    return [
        part if part.bags is None or part.table not in by_name else _spread(by_name[part.table], part, part.bags)
        for part in gradients
    ]


def _spread(ids: TableIds, part: Gradients, sent: BagGradients) -> Gradients:
    if ids.bags is None:
        raise LengthMismatch(f"table {part.table!r}: gradients of bags, and its ids were not sent with bags: push rows")
    n, bags_R = len(ids.ids_N), np.arange(sent.bags) if sent.bags_R is None else sent.bags_R
    if sent.bags != len(ids.bags) or sum(map(len, sent.blocks)) != len(bags_R):
        raise LengthMismatch(
            f"table {part.table!r}: gradients of {sum(map(len, sent.blocks))} of {sent.bags} bags sent, and the step "
            f"has {len(ids.bags)} bags here"
        )
    if part.ids != n:
        raise LengthMismatch(f"table {part.table!r}: gradients of {part.ids} rows sent for {n} ids")
    grads_UD, used_U = np.zeros((n, sent.dim), np.float32), np.zeros(n, np.bool_)
    done = 0
    for block_RD in sent.blocks:
        some_R = bags_R[done : done + len(block_RD)]
        kernels.spread(block_RD, ids.bags.starts_K, ids.bags.positions_P, some_R, grads_UD, used_U)
        done += len(block_RD)
    _add_rows(part, sent.dim, grads_UD, used_U)
    if not all_finite(grads_UD.reshape(-1)):
        raise NonFiniteGradient(
            f"table {part.table!r}: the gradients of a row's bags add up to more than float32 holds; this shard "
            "applied nothing (check the loss, clip the gradients)"
        )
    if used_U.all():
        return replace(part, blocks=[grads_UD], rows_R=None, ids=None, bags=None)
    rows_R = np.flatnonzero(used_U)
    return replace(part, blocks=[grads_UD[rows_R]], rows_R=rows_R, ids=n, bags=None)


def _add_rows(part: Gradients, dim: int, grads_UD: Rows, used_U: Flags) -> None:
    """Adds the gradients of rows that were sent as such."""
    rows_R, done = np.arange(len(grads_UD)) if part.rows_R is None else part.rows_R, 0
    for block_ND in part.blocks:
        rows_N = rows_R[done : done + len(block_ND)]
        if block_ND.shape[1] != dim:
            raise DimensionMismatch(
                f"table {part.table!r}: dim {grads_UD.shape[1]} of bags, {block_ND.shape[1]} of rows"
            )
        grads_UD[rows_N] += block_ND
        used_U[rows_N] = True
        done += len(block_ND)
