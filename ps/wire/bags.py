"""Bags of a table's ids that the shards sum: how a step's bags are encoded for each shard.

A shard is sent the R bags that have an id on it. Their ids are given by positions among the shard's n ids of the step;
both sides know n. Sums and gradients of the step, one for each of the R bags, come in the same order and do not repeat
the bags.

    bags      = R:uint32-le w:uint8 lengths positions
    lengths   = bits(R, w)          the length of each bag, less one; w, in [1, 32], is what the largest needs
    positions = bits(P, v)          of all bags, one after the other: P, the sum of the lengths; v is what n - 1 needs
    bits(k, w) = byte{ceil(k w / 8)}  k numbers of w bits, the lowest bit first; bits beyond the last are 0

So an id in a bag takes log2(n) bits, and a bag a few. A decoder allocates at most 66 times the bytes that it is given,
and `unpacked_bytes` says beforehand how many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps.arrays import BagPositions, Ints
from ps.errors import InvalidArgument, LengthMismatch
from ps.kernels.rows import bags as kernels
from ps.wire.codec import Buffer

_HEAD = 5
_MAX_WIDTH = 32


@dataclass(frozen=True)
class PooledBags:
    """The B bags of one table in a step, for `Client.prepare`: the shards then send one sum of rows for each bag."""

    positions_P: Ints
    """For all bags, one after the other, the positions of their ids among the table's ids of the step. An id may occur
    several times."""
    lengths_B: Ints
    """How many positions each bag has; 0 for an empty bag, whose sum is 0."""

    def __len__(self) -> int:
        return len(self.lengths_B)


def encode_bags(lengths_R: Ints, positions_P: Ints, n_ids: int) -> bytes:
    """Returns the bytes of bags that have at least one id each, of a shard's n_ids ids."""
    width = max(1, int(lengths_R.max(initial=1) - 1).bit_length())
    head = len(lengths_R).to_bytes(4, "little") + bytes((width,))
    return head + _encoded(lengths_R - 1, width) + _encoded(positions_P, _width_of(n_ids))


def unpacked_bytes(data: Buffer, n_ids: int) -> int:
    """Returns the most bytes that `decode_bags` makes of these bytes, whatever they are."""
    if len(data) < _HEAD or not 1 <= data[4] <= _MAX_WIDTH:
        return 0
    count, width = int.from_bytes(data[:4], "little"), data[4]
    lengths = min(_size(count, width), len(data) - _HEAD)
    positions = 8 * (len(data) - _HEAD - lengths) // _width_of(n_ids)
    return 8 * min(count, 8 * lengths // width) + 4 * positions


def decode_bags(data: Buffer, n_ids: int) -> tuple[Ints, BagPositions]:
    """Returns (starts int64 [R + 1], positions int32 [P], each in [0, n_ids)) of any bytes, as `ps.kernels.rows.bags`
    takes them. Raises LengthMismatch or InvalidArgument for bytes that are not of bags."""
    if len(data) < _HEAD:
        raise LengthMismatch(f"bags: {len(data)} bytes are too few for their number and width")
    count, width = int.from_bytes(data[:4], "little"), data[4]
    if not 1 <= width <= _MAX_WIDTH:
        raise InvalidArgument(f"bags: lengths of {width} bits: they have 1 to {_MAX_WIDTH}")
    rest_B = np.frombuffer(data, np.uint8)[_HEAD:]
    size = _size(count, width)
    if size > len(rest_B):
        raise LengthMismatch(f"bags: {count:,} lengths of {width} bits do not fit into {len(rest_B):,} bytes")
    starts_K = np.zeros(count + 1, np.int64)
    _decode(rest_B[:size], width, starts_K[1:])
    starts_K[1:] += 1
    np.cumsum(starts_K, out=starts_K)
    total, width = int(starts_K[-1]), _width_of(n_ids)
    if _size(total, width) != len(rest_B) - size:
        raise LengthMismatch(f"bags: {len(rest_B) - size:,} bytes of positions for {total:,} of {width} bits each")
    positions_P = np.empty(total, np.int32)
    largest = _decode(rest_B[size:], width, positions_P)
    if largest >= n_ids:
        raise InvalidArgument(f"bags: position {largest} is out of range, there are {n_ids} ids")
    return starts_K, positions_P


def _width_of(n_ids: int) -> int:
    return max(1, (n_ids - 1).bit_length())


def _size(count: int, width: int) -> int:
    return -(-count * width // 8)


def _blank(count: int, width: int) -> npt.NDArray[np.uint64]:
    return np.zeros(-(-count * width // 64) + 1, np.uint64)


def _encoded(numbers_N: Ints, width: int) -> bytes:
    words = _blank(len(numbers_N), width)
    kernels.put_numbers(np.ascontiguousarray(numbers_N, np.int64), width, words)
    return words.view(np.uint8)[: _size(len(numbers_N), width)].tobytes()


def _decode(data_B: npt.NDArray[np.uint8], width: int, out_N: Ints | BagPositions) -> int:
    """Fills `out`; returns the largest number."""
    count = len(out_N)
    spare = 8 * len(data_B) - count * width
    if spare and data_B[-1] >> (8 - spare):
        raise InvalidArgument("bags: a bit beyond the last number is set")
    words = _blank(count, width)
    words.view(np.uint8)[: len(data_B)] = data_B
    largest: int = kernels.get_numbers(words, width, out_N)
    return largest
