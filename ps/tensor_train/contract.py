"""Runs one batch through the kernels: in which order, which part of it on which thread, and where gradients are
collected.

A large batch is cut in two, always at the same place and between two middle slices. So what comes out does not depend
on who does which part, or whether at once. The middle core's gradients have one place; of the others each part has its
own, added up in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ps.arrays import Floats, Ints
from ps.kernels import tensor_train as kernels
from ps.kernels.tensor_train import Dims

Share = Callable[[Sequence[Callable[[], None]]], None]
"""A function that runs tasks which touch disjoint memory, and returns when all are done."""

SHARE_FROM_ROWS = 1024
"""Smaller batches are not shared: they are over before another thread has woken."""


def one_by_one(tasks: Sequence[Callable[[], None]]) -> None:
    """Runs all tasks on this thread."""
    for task in tasks:
        task()


@dataclass(frozen=True)
class Order:
    """The rows of a batch, ordered by their pairs (see `ps.kernels.tensor_train`)."""

    left_P: Ints
    middle_P: Ints
    starts_P: Ints
    places_N: Ints
    parts: list[tuple[int, int]]
    """The pairs [first, last) of each part."""

    @classmethod
    def of(cls, left_N: Ints, lefts: int, middle_N: Ints, middles: int) -> Order:
        """Orders a batch. `lefts` and `middles` say how many slices these cores have."""
        n = len(left_N)
        places_N, left_P, middle_P, starts_P = (np.empty(n + 1, np.int64) for _ in range(4))
        pairs = kernels.order_pairs(left_N, lefts, middle_N, middles, places_N, left_P, middle_P, starts_P)
        parts = [(0, pairs)]
        if n >= SHARE_FROM_ROWS:
            at_half = np.searchsorted(starts_P[:pairs], n // 2)
            cut = int(np.searchsorted(middle_P[:pairs], middle_P[min(at_half, pairs - 1)]))
            parts = [(0, cut), (cut, pairs)]
        return cls(left_P[:pairs], middle_P[:pairs], starts_P[: pairs + 1], places_N[:n], parts)

    @property
    def pair_N(self) -> Ints:  # noqa: N802  an array, so its name carries its shape
        """Returns the pair that each row of the batch belongs to."""
        pair_N = np.empty(len(self.places_N), np.int64)
        pair_N[self.places_N] = np.repeat(np.arange(len(self.left_P)), np.diff(self.starts_P))
        return pair_N


@dataclass(frozen=True)
class Touched:
    """The slices of a core that occur in a batch, and where the gradient of each is collected."""

    slices_T: Ints
    at_P: Ints
    """The place of each slice's gradient; slices that do not occur have none."""

    @classmethod
    def of(cls, digit_N: Ints, slices: int) -> Touched:
        """Finds the slices that occur; `digit_N` is the slice of each row."""
        occurs_P = np.zeros(slices, np.bool_)
        occurs_P[digit_N] = True
        return cls(np.flatnonzero(occurs_P), np.cumsum(occurs_P) - 1)


class Buffers:
    """Arrays by name that are used again."""

    def __init__(self, kind: np.dtype[Any]) -> None:
        self._kind = kind
        self._found: dict[str, Floats] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self._found.values())

    def zeros(self, name: str, rows: int, width: int) -> Floats:
        """Returns [rows, width] of zeros; the array that had this name before loses its content."""
        buffer = self._found.get(name)
        if buffer is None or buffer.size < rows * width:
            buffer = self._found[name] = np.empty(rows * width, self._kind)
        found = buffer[: rows * width].reshape(rows, width)
        found[:] = 0
        return found


@dataclass(frozen=True)
class Factors:
    """Three cores as the kernels take them, and the slices of each row of a batch."""

    left_LKR: Floats
    middle_MW: Floats
    right_TKS: Floats
    dims: Dims
    left_N: Ints
    middle_N: Ints
    right_N: Ints

    def rows(self, out_ND: Floats, share: Share) -> None:
        """Computes the rows."""
        order = Order.of(self.left_N, len(self.left_LKR), self.middle_N, len(self.middle_MW))
        share(
            [
                partial(kernels.forward, *self._cores(order), first, last, out_ND)
                for first, last in order.parts
                if first < last
            ]
        )

    def gradients(self, grads_ND: Floats, touched: Sequence[Touched], buffers: Buffers, share: Share) -> list[Floats]:
        """Computes the gradients of the slices touched in the left, middle and right core from the gradients of the
        rows."""
        order = Order.of(self.left_N, len(self.left_LKR), self.middle_N, len(self.middle_MW))
        a, r, b, s, c = self.dims
        left, middle, right = (len(side.slices_T) for side in touched)
        middle_TJ = buffers.zeros("middle", middle, r * b * s)
        parts = [
            (buffers.zeros(f"left {part}", left, a * r), middle_TJ, buffers.zeros(f"right {part}", right, c * s))
            for part in range(len(order.parts))
        ]
        at = [side.at_P for side in touched]
        share(
            [
                partial(kernels.backward, *self._cores(order), first, last, grads_ND, *at, *grads)
                for (first, last), grads in zip(order.parts, parts, strict=True)
                if first < last
            ]
        )
        for others in parts[1:]:
            parts[0][0][:] += others[0]
            parts[0][2][:] += others[2]
        return list(parts[0])

    def _cores(self, order: Order) -> tuple[Any, ...]:
        cores = self.left_LKR, self.middle_MW, self.right_TKS
        return *cores, self.dims, order.left_P, order.middle_P, order.starts_P, self.right_N, order.places_N


@dataclass(frozen=True)
class Front:
    """Contracts the first two of four cores, for each pair of their slices that occurs."""

    left_LKR: Floats
    middle_MW: Floats
    dims: Dims
    order: Order

    @classmethod
    def of(cls, left_LKR: Floats, middle_MW: Floats, dims: Dims, left_N: Ints, middle_N: Ints) -> Front:
        """Finds the pairs; `dims` is (q_1, R_1, q_2, R_2, 1)."""
        return cls(left_LKR, middle_MW, dims, Order.of(left_N, len(left_LKR), middle_N, len(middle_MW)))

    def products(self, share: Share) -> Floats:
        """Returns the products, [pairs, q_1 * q_2, R_2]."""
        a, _, b, s, _ = self.dims
        out_PJ = np.empty((len(self.order.left_P), a * b * s), self.left_LKR.dtype)
        share(
            [
                partial(kernels.pairs_forward, *self._cores, first, last, out_PJ)
                for first, last in self.order.parts
                if first < last
            ]
        )
        return out_PJ.reshape(-1, a * b, s)

    def gradients(self, grads_PJ: Floats, touched: Sequence[Touched], buffers: Buffers) -> list[Floats]:
        """Computes the gradients of the slices touched in the two cores from the gradients of the products."""
        a, r, b, s, _ = self.dims
        left, middle = (len(side.slices_T) for side in touched)
        grads = [buffers.zeros("first", left, a * r), buffers.zeros("second", middle, r * b * s)]
        at = [side.at_P for side in touched]
        kernels.pairs_backward(*self._cores, 0, len(self.order.left_P), grads_PJ, *at, *grads)
        return grads

    @property
    def _cores(self) -> tuple[Any, ...]:
        return self.left_LKR, self.middle_MW, self.dims, self.order.left_P, self.order.middle_P
