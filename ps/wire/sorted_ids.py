"""Encodes unique ids in ascending order as bytes, and decodes them.

    sorted ids = n first groups
    n          = uint32-le            how many; if none, nothing follows
    first      = int64-le
    groups     = the gaps between ids, as ps/kernels/packing/deltas.py encodes them

100,000 random ids of 10**7 take 1.03 bytes each, 64-bit hashes 6.1, a whole range of ids 1/8; n ids take at most 8 n +
n / 100 + 8 bytes. A decoder allocates at most 64 times the bytes that it is given, because a gap takes at least a bit.
"""

from __future__ import annotations

import numpy as np

from ps.arrays import Ids
from ps.errors import InvalidArgument, LengthMismatch
from ps.kernels.packing import deltas
from ps.wire.codec import Buffer

_COUNT, _HEAD = 4, 12


def encode_sorted_ids(ids_N: Ids) -> bytes:
    """Returns the bytes of ids, int64 [n], strictly ascending, n below 2**32. Raises InvalidArgument if they do not
    ascend."""
    count = len(ids_N).to_bytes(_COUNT, "little")
    if not len(ids_N):
        return count
    groups_B = np.zeros(deltas.most_bytes(len(ids_N)), np.uint8)
    size = deltas.encode(np.ascontiguousarray(ids_N), groups_B)
    if size < 0:
        at = int(np.flatnonzero(ids_N[1:] <= ids_N[:-1])[0])
        raise InvalidArgument(
            f"ids must ascend, each once: id {ids_N[at]} is followed by {ids_N[at + 1]}; sort them (numpy.unique)"
        )
    return count + int(ids_N[0]).to_bytes(8, "little", signed=True) + groups_B[:size].tobytes()


def sorted_count(data: Buffer) -> int:
    """Returns how many ids these bytes announce."""
    return int.from_bytes(data[:_COUNT], "little")


def decode_sorted_ids(data: Buffer) -> Ids:
    """Returns ids, int64 [n], strictly ascending, of any bytes. Raises LengthMismatch, InvalidArgument."""
    n = sorted_count(data)
    if len(data) < (_HEAD if n else _COUNT):
        raise LengthMismatch(f"sorted ids: {len(data)} bytes are too few for the count and the first id")
    size = len(data) - (_HEAD if n else _COUNT)
    if n - 1 > 8 * size or (not n and size):
        raise LengthMismatch(f"sorted ids: {n:,} ids cannot be in {size:,} bytes: a bit at least, and 67 at most, each")
    ids_N = np.empty(n, np.int64)
    if n:
        groups_B = np.zeros(size + deltas.MARGIN, np.uint8)
        groups_B[:size] = np.frombuffer(data, np.uint8)[_HEAD:]
        first = int.from_bytes(data[_COUNT:_HEAD], "little", signed=True)
        _check(deltas.decode(groups_B, size, first, ids_N), n, size)
    return ids_N


def _check(result: int, n: int, size: int) -> None:
    if result == deltas.SHORT:
        raise LengthMismatch(f"sorted ids: {size:,} bytes end before the last of {n:,} ids")
    if result == deltas.LONG:
        raise LengthMismatch(f"sorted ids: of {size:,} bytes some are left over after {n:,} ids")
    if result == deltas.TOO_LARGE:
        raise InvalidArgument("sorted ids: an id beyond 2**63 - 1, or a group's parameter above 63")
