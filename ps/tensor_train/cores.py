"""The cores of one tensor-train table: read by row number, trained by the gradients of rows.

A core lies as [p, slice + state]: a slice and, side by side with it, the state of the optimizer, which updates slices
as it updates rows of any table. The last core's slices lie transposed, as the kernels want them, and rows of the first
and the last core are whole lines of R floats, so that the kernels find matrices without copying. Kernels contract three
cores: two are three with a first one that is 1, and of four the first two are contracted beforehand, once for each pair
of their slices that occurs.

Threads: one at a time; `share` may take some of the work to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ps.arrays import Floats, Ints
from ps.kept import KeptState, overwrite
from ps.kernels.updates.optim import UpdateRule
from ps.tensor_train.contract import Buffers, Factors, Front, Share, Touched, one_by_one
from ps.tensor_train.shape import TTShape


@dataclass(frozen=True)
class SliceGradients:
    """The gradients of one core."""

    slices_T: Ints
    """The slices that rows of the batch have; all other slices have a gradient of 0."""
    grads_TJ: Floats
    """The gradients, laid out as the slices are, in a buffer that the next call for gradients uses again."""


class Cores:
    """The cores of one table; see the module."""

    def __init__(self, shape: TTShape, arrays: Sequence[Floats], rules: Sequence[UpdateRule]) -> None:
        """`arrays` are the cores, [p, R, q, S] each, as `shape.cores` says; all float32, or all float64. `rules` are
        the optimizers of each core's slices, for rows of `shape.slice_sizes` floats."""
        rows: list[Floats] = []
        for k, (size, rule, array) in enumerate(zip(shape.slice_sizes, rules, arrays, strict=True)):
            line = _lines(shape)[k]
            width = -(-(size + rule.state_width) // line) * line
            rows_PW = np.full((len(array), width), rule.initial_state, array.dtype)
            rows_PW[:, :size] = _laid(array, last=k == len(arrays) - 1)
            rows.append(rows_PW)
        self._hold(shape, rows, rules)

    @classmethod
    def over(cls, shape: TTShape, rows: Sequence[Floats], rules: Sequence[UpdateRule]) -> Cores:
        """Makes cores in memory that the caller has, laid out as `rows` is with such rules; the memory is read and
        written in place."""
        cores = cls.__new__(cls)
        cores._hold(shape, rows, rules)
        return cores

    def _hold(self, shape: TTShape, rows: Sequence[Floats], rules: Sequence[UpdateRule]) -> None:
        self.shape = shape
        self.steps = 0
        self._lines = _lines(shape)
        self._rules = list(rules)
        self._rows = list(rows)
        self._one = np.ones((1, 1, 1), rows[0].dtype)
        self._buffers = Buffers(rows[0].dtype)

    @property
    def rows(self) -> list[Floats]:
        """The memory itself, [p, slice + state] for each core; see the module."""
        return list(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes of values and state, and of the buffers that gradients are collected in."""
        return sum(rows_PW.nbytes for rows_PW in self._rows) + self._buffers.nbytes

    @property
    def arrays(self) -> list[Floats]:
        """Copies of the cores, [p, R, q, S] each."""
        found = []
        for k, (p, before, q, after) in enumerate(self.shape.cores):
            laid_PJ = self._rows[k][:, : before * q * after]
            last = k == len(self._rows) - 1
            shaped = laid_PJ.reshape(p, q, before).transpose(0, 2, 1) if last else laid_PJ
            found.append(shaped.reshape(p, before, q, after).copy())
        return found

    def lookup(self, index_N: Ints, out_ND: Floats, share: Share = one_by_one) -> None:
        """out[i] = row index[i]. Row numbers in [0, rows), in any order, repeated or not; `out` [n, D] contiguous."""
        if len(index_N):
            self.factors(index_N, share).rows(out_ND, share)

    def apply(self, index_N: Ints, grads_ND: Floats, share: Share = one_by_one, step: int | None = None) -> int:
        """One step of the optimizer by the gradients of rows; those of a row that comes more than once add up. Slices
        that no row of the batch has stay as they are, state too. `step`: which one it is, by default the next.
        How many slices may not be finite afterwards."""
        if not len(index_N):
            return 0
        self.steps = self.steps + 1 if step is None else step
        gradients = self.gradients(index_N, grads_ND, share)
        return sum(
            rule.update(rows_PW, found.slices_T, found.grads_TJ, self.steps)
            for rows_PW, rule, found in zip(self._rows, self._rules, gradients, strict=True)
        )

    def train_with(self, rules: Sequence[UpdateRule]) -> None:
        """Has `apply` use other rules from now on, for slices with as much state."""
        self._rules = list(rules)

    def gradients(self, index_N: Ints, grads_ND: Floats, share: Share = one_by_one) -> list[SliceGradients]:
        """Computes the gradients of the cores from the gradients of rows, of which there is at least one."""
        digits_KN = self.shape.digits(index_N)
        front = self._front(digits_KN)
        factors = self._factors(digits_KN, front, share)
        touched = [Touched.of(digit_N, len(rows_PW)) for digit_N, rows_PW in zip(digits_KN, self._rows, strict=True)]
        left = Touched.of(factors.left_N, len(factors.left_LKR))
        first, *others = factors.gradients(grads_ND, (left, *touched[-2:]), self._buffers, share)
        if front is not None:
            others = front.gradients(first, touched[:2], self._buffers) + others
        elif len(self._rows) == 3:
            others = [first, *others]
        return [SliceGradients(side.slices_T, grads_TJ) for side, grads_TJ in zip(touched, others, strict=True)]

    def factors(self, index_N: Ints, share: Share = one_by_one) -> Factors:
        """Returns the three cores whose product these rows are. The middle one, the last but one of all, is not a
        copy."""
        digits_KN = self.shape.digits(index_N)
        return self._factors(digits_KN, self._front(digits_KN), share)

    def state(self) -> KeptState:
        """See `ps.kept`: slices and the state of their optimizer."""
        return {"steps": self.steps, **{f"rows.{k}": rows_PW for k, rows_PW in enumerate(self._rows)}}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        self.steps = state["steps"]
        for k, rows_PW in enumerate(self._rows):
            overwrite(rows_PW, state[f"rows.{k}"])

    def _front(self, digits_KN: Ints) -> Front | None:
        if len(self._rows) < 4:
            return None
        (_, _, q1, r1), (_, _, q2, r2) = self.shape.cores[:2]
        return Front.of(self._matrices(0), self._rows[1], (q1, r1, q2, r2, 1), *digits_KN[:2])

    def _factors(self, digits_KN: Ints, front: Front | None, share: Share) -> Factors:
        (_, r, b, s), (_, _, c, _) = self.shape.cores[-2:]
        if front is not None:
            left_LKR, left_N, a = front.products(share), front.order.pair_N, self.shape.q[0] * self.shape.q[1]
        elif len(self._rows) == 3:
            left_LKR, left_N, a = self._matrices(0), digits_KN[0], self.shape.q[0]
        else:
            left_LKR, left_N, a = self._one, np.zeros(digits_KN.shape[1], np.int64), 1
        right_TKS = self._matrices(len(self._rows) - 1)
        return Factors(left_LKR, self._rows[-2], right_TKS, (a, r, b, s, c), left_N, *digits_KN[-2:])

    def _matrices(self, k: int) -> Floats:
        """Views the first or last core as [p, lines, R]; a slice is the first lines of each. It is not a copy."""
        rows_PW = self._rows[k]
        return rows_PW.reshape(len(rows_PW), -1, self._lines[k])


def _lines(shape: TTShape) -> tuple[int, ...]:
    """Returns how many floats a line of each core has; slices and their state take whole lines."""
    return shape.ranks[0], *[1] * (len(shape.p) - 2), shape.ranks[-1]


def _laid(array: Floats, *, last: bool) -> Floats:
    """Lays out a core's slices as [p, slice]."""
    return (array[:, :, :, 0].transpose(0, 2, 1) if last else array).reshape(len(array), -1)
