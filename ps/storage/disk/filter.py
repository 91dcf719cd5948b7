"""Filters the ids that may have a row on disk, so that an id without one costs no read.

A scalable Bloom filter (Almeida et al. 2007): layers, each larger than the one before, opened when that is full;
nothing is ever rehashed. It begins with a few KiB, so that a table takes what its rows on disk need and no more; two
steps lead to layers of STEADY_IDS, from which on each is of twice the capacity. Never wrong about an id that was put
in. There is no removal: an id that is gone costs a disk read that finds nothing, until the filter is built again with
those that are left. One thread.

    an id takes 12 bits of its layer; the newest layer is half empty on average, so about 2 bytes of RAM
    an absent id is taken for a present one by 0.5 % of the full layers; by 0.1 % of the first ones, of 16 bits an id
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ps.arrays import Flags, Ids
from ps.errors import ResourceExhausted
from ps.kept import KeptState
from ps.kernels.index.bloom import BLOCK_WORDS, add, may_contain
from ps.runtime.memory import Memory, ReservedArray

BITS_PER_ID = 12
BITS_PER_EARLY_ID = 16
"""In layers for less than STEADY_IDS: they stay, and are asked before the others for every absent id."""
FIRST_IDS = 1 << 12
"""Ids of the first layer, unless more are expected: 8 KiB."""
STEADY_IDS = 1 << 18
"""384 KiB."""
EARLY_GROWTH = 8
"""Times the capacity that the next layer has, up to STEADY_IDS."""

_BLOCK_BITS = BLOCK_WORDS * 64


def layer_bytes(capacity: int) -> int:
    """Returns what a layer for so many ids takes."""
    bits = BITS_PER_ID if capacity >= STEADY_IDS else BITS_PER_EARLY_ID
    return -(-capacity * bits // _BLOCK_BITS) * _BLOCK_BITS // 8


def next_capacity(capacity: int) -> int:
    """Returns how many ids the layer is for that comes after one for so many."""
    return max(2 * capacity, min(EARLY_GROWTH * capacity, STEADY_IDS))


def layers_for(ids: int) -> Iterator[int]:
    """Returns the bytes of each layer of a filter that has grown to so many ids."""
    capacity = FIRST_IDS
    while ids > 0:
        yield layer_bytes(capacity)
        ids -= capacity
        capacity = next_capacity(capacity)


class IdFilter:
    """A set of ids that sometimes claims to have one that it has not."""

    def __init__(self, expected_ids: int = FIRST_IDS, memory: Memory | None = None) -> None:
        """Makes room for that many ids in the first layer, because one layer is faster than several. Raises
        ResourceExhausted."""
        self._memory = memory
        self._layers: list[ReservedArray] = []
        self._room = 0
        self._open_layer(max(expected_ids, 1))

    @property
    def layers(self) -> int:
        """How many places an absent id is looked for in."""
        return len(self._layers)

    @property
    def nbytes(self) -> int:
        """Bytes of RAM."""
        return sum(layer.committed_bytes for layer in self._layers)

    def add(self, ids_N: Ids) -> None:
        """Adds ids; those that it claims to have already take no room.

        It never fails: when there is no memory left, the newest layer takes more ids than it is made for, and mistakes
        grow.
        """
        new_N = ids_N[~self.may_contain(ids_N)]
        while len(new_N):
            if not self._room:
                self._extend()
            now_N, new_N = new_N[: self._room], new_N[self._room :]
            add(self._layers[-1].array.reshape(-1), now_N)
            self._room -= len(now_N)

    def may_contain(self, ids_N: Ids) -> Flags:
        """Returns False for ids that were certainly not added, True for those that were added and, by mistake, for a
        few others."""
        found_N = np.zeros(len(ids_N), np.bool_)
        for layer in reversed(self._layers):  # the newest has the most
            may_contain(layer.array.reshape(-1), ids_N, found_N)
        return found_N

    def state(self) -> KeptState:
        """See `ps.kept`."""
        layers = {f"layers.{i}": layer.array for i, layer in enumerate(self._layers)}
        return {"capacity": self._capacity, "room": self._room, **layers}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`. Raises ResourceExhausted, and is as it was then."""
        before, self._layers = self._layers, []
        try:
            for i in range(sum(name.startswith("layers.") for name in state)):
                saved = state[f"layers.{i}"]
                self._add_layer(len(saved)).array[: len(saved)] = saved
        except BaseException:
            self.close()
            self._layers = before
            raise
        for layer in before:
            layer.close()
        self._capacity, self._room = state["capacity"], state["room"]

    def close(self) -> None:
        """Gives the memory back; no call after it, except close."""
        for layer in self._layers:
            layer.close()
        self._layers = []

    def _extend(self) -> None:
        try:
            self._open_layer(next_capacity(self._capacity))
        except ResourceExhausted:
            self._room = self._capacity

    def _open_layer(self, capacity: int) -> None:
        self._add_layer(layer_bytes(capacity) * 8 // _BLOCK_BITS)
        self._capacity = self._room = capacity

    def _add_layer(self, blocks: int) -> ReservedArray:
        layer = ReservedArray((BLOCK_WORDS,), np.uint64, blocks, self._memory)
        try:
            layer.ensure(blocks)
        except ResourceExhausted:
            layer.close()
            raise
        self._layers.append(layer)
        return layer
