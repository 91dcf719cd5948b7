"""Which ids may have a row on disk: asked before the disk is, so that an id that has none costs no read.

A scalable Bloom filter (Almeida et al. 2007): layers, each of twice the capacity of the one before, opened when that is
full; nothing is ever rehashed. Never wrong about an id that was put in. There is no removal: an id that is gone costs a
disk read that finds nothing. Made anew (`DiskTier.ids`) it forgets them. One thread.

    an id takes 12 bits of its layer; the newest layer is half empty on average, so about 2 bytes of RAM
    an absent id is taken for a present one by 0.5 % of the full layers
"""

from __future__ import annotations

import numpy as np

from ps.kernels.bloom import BLOCK_WORDS, add, may_contain
from ps.memory import ReservedArray
from ps.storage.tier import Flags, Ids

BITS_PER_ID = 12
FIRST_IDS = 1 << 18
"""Ids of the first layer, unless more are expected: 384 KiB."""

_BLOCK_BITS = BLOCK_WORDS * 64


class IdFilter:
    """A set of ids that sometimes claims to have one that it has not."""

    def __init__(self, expected_ids: int = FIRST_IDS) -> None:
        """Room for that many ids in the first layer: one layer is faster than several. Raises ResourceExhausted."""
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
        """Puts ids in; those that it claims to have already take no room.

        Raises ResourceExhausted when memory is at its end; then some may be in and some not.
        """
        new_N = ids_N[~self.may_contain(ids_N)]
        while len(new_N):
            if not self._room:
                self._open_layer(2 * self._capacity)
            now_N, new_N = new_N[: self._room], new_N[self._room :]
            add(self._layers[-1].array.reshape(-1), now_N)
            self._room -= len(now_N)

    def may_contain(self, ids_N: Ids) -> Flags:
        """False: certainly not put in. True: put in, or one of the few mistakes."""
        found_N = np.zeros(len(ids_N), np.bool_)
        for layer in reversed(self._layers):  # the newest has the most
            may_contain(layer.array.reshape(-1), ids_N, found_N)
        return found_N

    def close(self) -> None:
        """Gives the memory back; no call after it, except close."""
        for layer in self._layers:
            layer.close()
        self._layers = []

    def _open_layer(self, capacity: int) -> None:
        blocks = -(-capacity * BITS_PER_ID // _BLOCK_BITS)
        layer = ReservedArray((BLOCK_WORDS,), np.uint64, blocks)
        layer.ensure(blocks)
        self._layers.append(layer)
        self._capacity = self._room = capacity
