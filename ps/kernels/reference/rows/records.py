"""`ps.kernels.rows.records`, in numpy. All integers: exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Ids
from ps.kernels.reference.index.hashing import mix64, partitions

VERSION = 1
HEADER_BYTES = 13

_SIGN = np.uint64(1 << 63)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def encode_keys(ids_N: Ids, keys_NK: Bytes) -> None:
    """keys[i] = partition and id, big-endian, the id's sign bit flipped."""
    partitions_N = np.empty(len(ids_N), np.int32)
    partitions(ids_N, partitions_N)
    keys_NK[:, :2] = partitions_N.astype(">u2")[:, None].view(np.uint8)
    keys_NK[:, 2:] = (ids_N.view(np.uint64) ^ _SIGN).astype(">u8")[:, None].view(np.uint8)


def decode_keys(keys_NK: Bytes, ids_N: Ids) -> None:
    """ids[i] = the id in keys[i]."""
    big_endian_N = np.ascontiguousarray(keys_NK[:, 2:]).view(">u8").reshape(-1)
    ids_N[:] = (big_endian_N.astype(np.uint64) ^ _SIGN).view(np.int64)


def _checksums(ids_N: Ids, bytes_NB: Bytes) -> npt.NDArray[np.uint32]:
    """Words in their order, the last filled up with zeros; there is always one that is not full."""
    n, length = bytes_NB.shape
    padded = np.zeros((n, length // 8 * 8 + 8), np.uint8)
    padded[:, :length] = bytes_NB
    sums_N = np.full(n, VERSION + length, np.uint64)
    for words_N in [ids_N.view(np.uint64), *padded.view("<u8").T]:
        sums_N = (sums_N ^ words_N) * _FACTOR
        sums_N ^= sums_N >> np.uint64(32)
    return (mix64(sums_N) & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def encode_values(
    ids_N: Ids,
    scores_N: npt.NDArray[np.float32],
    stamps_N: npt.NDArray[np.uint32],
    rows_NB: Bytes,
    values_NV: Bytes,
) -> None:
    """values[i] = version, checksum, score, stamp, row."""
    values_NV[:, 0] = VERSION
    values_NV[:, 5:9] = scores_N[:, None].view(np.uint8)
    values_NV[:, 9:13] = stamps_N[:, None].view(np.uint8)
    values_NV[:, 13:] = rows_NB
    values_NV[:, 1:5] = _checksums(ids_N, values_NV[:, 5:])[:, None].view(np.uint8)


def decode_values(
    ids_N: Ids,
    values_NV: Bytes,
    scores_N: npt.NDArray[np.float32],
    stamps_N: npt.NDArray[np.uint32],
    rows_NB: Bytes,
    sound_N: npt.NDArray[np.bool_],
) -> int:
    """The parts again; sound[i] = whether version and checksum are right. Returns how many are not."""
    scores_N[:] = np.ascontiguousarray(values_NV[:, 5:9]).view(np.float32).reshape(-1)
    stamps_N[:] = np.ascontiguousarray(values_NV[:, 9:13]).view(np.uint32).reshape(-1)
    rows_NB[:] = values_NV[:, 13:]
    written_N = np.ascontiguousarray(values_NV[:, 1:5]).view(np.uint32).reshape(-1)
    sound_N[:] = (written_N == _checksums(ids_N, values_NV[:, 5:])) & (values_NV[:, 0] == VERSION)
    return int((~sound_N).sum())
