"""Rows as they lie on disk: keys and values as packed bytes, whole batches at once.

    key    = partition (2 bytes) + id with its sign bit flipped (8 bytes), big-endian: ordered by bytes, a partition is
             a range of keys and within it ids are ascending
    value  = version (1 byte) + checksum (4) + score (4, float32) + stamp (4, uint32), little-endian + the row's bytes

The checksum is over id, score, stamp and row: it also finds a sound value under another id. It is 64-bit multiply-mix
(as in SplitMix64) of 8-byte words in their order, cut to 32 bits: each step is a bijection, so words that differ in one
place give another 64-bit sum, and another checksum but for 1 time in 2**32. Not against malice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Ids
from ps.kernels.index.hashing import mix64
from ps.kernels.kernel import helper, kernel
from ps.kernels.words import load32, load64, store32

VERSION = 1
"""The version of a value's form. It rises when that form changes."""
KEY_BYTES = 10
HEADER_BYTES = 13

_CHECKSUM, _SCORE, _STAMP = 1, 5, 9
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_S8, _S32, _S52 = np.uint64(8), np.uint64(32), np.uint64(52)
_BYTE, _LOW32, _SIGN = np.uint64(0xFF), np.uint64(0xFFFFFFFF), np.uint64(1 << 63)


@kernel(either="ids_N")
def encode_keys(ids_N: Ids, keys_NK: Bytes) -> None:
    """keys[i] = the key of ids[i], uint8 [n, KEY_BYTES]."""
    for i in range(len(ids_N)):
        partition = mix64(np.uint64(ids_N[i])) >> _S52
        keys_NK[i, 0] = np.uint8(partition >> _S8)
        keys_NK[i, 1] = np.uint8(partition & _BYTE)
        bits = np.uint64(ids_N[i]) ^ _SIGN
        for k in range(8):
            keys_NK[i, 2 + k] = np.uint8((bits >> np.uint64(56 - 8 * k)) & _BYTE)


@kernel(read_only="keys_NK")
def decode_keys(keys_NK: Bytes, ids_N: Ids) -> None:
    """ids[i] = the id in keys[i]."""
    for i in range(len(ids_N)):
        bits = np.uint64(0)
        for k in range(8):
            bits = (bits << _S8) | np.uint64(keys_NK[i, 2 + k])
        ids_N[i] = np.int64(bits ^ _SIGN)


@helper()
def _step(sum_: np.uint64, word: np.uint64) -> np.uint64:
    """One word more: for either argument, a bijection of it."""
    sum_ = (sum_ ^ word) * _FACTOR
    return sum_ ^ (sum_ >> _S32)


@helper()
def _checksum(id_: np.int64, values_NV: Bytes, at: np.int64, end: np.int64) -> np.uint32:
    """Returns the checksum of an id and the flat bytes [at, end), with their length; zeros fill up the last word."""
    sum_ = _step(np.uint64(VERSION) + np.uint64(end - at), np.uint64(id_))
    while at + 8 <= end:
        sum_ = _step(sum_, load64(values_NV, at))
        at += 8
    tail = np.uint64(0)
    while at < end:
        end -= 1
        tail = (tail << _S8) | np.uint64(values_NV.flat[end])
    return np.uint32(mix64(_step(sum_, tail)) & _LOW32)


@kernel()
def encode_values(
    ids_N: Ids,
    scores_N: npt.NDArray[np.float32],
    stamps_N: npt.NDArray[np.uint32],
    rows_NB: Bytes,
    values_NV: Bytes,
) -> None:
    """values[i] = what is written under ids[i]; contiguous uint8 [n, HEADER_BYTES + B]."""
    width = values_NV.shape[1]
    score_bits_N = scores_N.view(np.uint32)
    for i in range(len(ids_N)):
        start = i * width
        values_NV[i, 0] = VERSION
        store32(values_NV, start + _SCORE, score_bits_N[i])
        store32(values_NV, start + _STAMP, stamps_N[i])
        for j in range(rows_NB.shape[1]):
            values_NV[i, HEADER_BYTES + j] = rows_NB[i, j]
        store32(values_NV, start + _CHECKSUM, _checksum(ids_N[i], values_NV, start + _SCORE, start + width))


@kernel(read_only="values_NV")
def decode_values(
    ids_N: Ids,
    values_NV: Bytes,
    scores_N: npt.NDArray[np.float32],
    stamps_N: npt.NDArray[np.uint32],
    rows_NB: Bytes,
    sound_N: npt.NDArray[np.bool_],
) -> int:
    """What `encode_values` was given. sound[i] = whether values[i] is what was written under ids[i]; where it is not,
    the rest is undefined. Returns how many are not."""
    width = values_NV.shape[1]
    score_bits_N = scores_N.view(np.uint32)
    unsound = 0
    for i in range(len(ids_N)):
        start = i * width
        found = _checksum(ids_N[i], values_NV, start + _SCORE, start + width)
        sound = values_NV[i, 0] == VERSION and load32(values_NV, start + _CHECKSUM) == found
        sound_N[i] = sound
        unsound += not sound
        score_bits_N[i] = load32(values_NV, start + _SCORE)
        stamps_N[i] = load32(values_NV, start + _STAMP)
        for j in range(rows_NB.shape[1]):
            rows_NB[i, j] = values_NV[i, HEADER_BYTES + j]
    return unsound
