"""Turns batches of rows into lists of `bytes`, which RocksDB's binding takes and returns, and back.

Pure functions. One object for each row cannot be avoided; numpy's `tolist` of a void type makes them in about 50 ns
each, a slice of one big `bytes` takes twice that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids
from ps.kernels.index.hashing import group, partitions
from ps.kernels.rows import records as kernels
from ps.storage.tier import Records, where

PARTITIONS = 4096
UNREADABLE = b""
"""Stands for a value that RocksDB could not read. No row has this length: it is found corrupt like any other."""


class Decoded(NamedTuple):
    """The rows that some values decode to."""

    found: list[Records]
    """The sound rows, by length."""
    corrupt_N: Ids
    reasons: list[str]
    """Why other values are not sound; of many only a few."""


def key_order(ids_N: Ids) -> Ids:
    """Returns the positions of ids in the order of their keys: by partition, then by id."""
    by_id_N = np.argsort(ids_N)
    partitions_N = np.empty(len(ids_N), np.int32)
    partitions(ids_N[by_id_N], partitions_N)
    by_partition_N: Ids = group(partitions_N, PARTITIONS)[0]  # stable: a partition's ids stay in order
    return by_id_N[by_partition_N]


def keys_of(ids_N: Ids) -> list[bytes]:
    """Returns the keys of ids."""
    keys_NK = np.empty((len(ids_N), kernels.KEY_BYTES), np.uint8)
    kernels.encode_keys(ids_N, keys_NK)
    return _split(keys_NK)


def ids_of(keys: Sequence[bytes]) -> Ids:
    """Returns the ids in keys."""
    keys_NK = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), kernels.KEY_BYTES)
    ids_N = np.empty(len(keys), np.int64)
    kernels.decode_keys(keys_NK, ids_N)
    return ids_N


def encode(records: Records) -> tuple[list[bytes], list[bytes]]:
    """Returns keys and values in the order of the keys, in which a memtable takes them faster."""
    order_N = key_order(records.ids_N)
    ids_N, rows_NB = records.ids_N[order_N], records.rows_NB[order_N]
    values_NV = np.empty((len(ids_N), kernels.HEADER_BYTES + rows_NB.shape[1]), np.uint8)
    kernels.encode_values(ids_N, records.scores_N[order_N], records.stamps_N[order_N], rows_NB, values_NV)
    return keys_of(ids_N), _split(values_NV)


def decode(ids_N: Ids, values: Sequence[bytes], row_bytes: Collection[int]) -> Decoded:
    """Returns the rows in values, each checked against its id. row_bytes: the legal lengths of a row."""
    lengths_N = np.fromiter(map(len, values), np.int64, len(values))
    found, corrupt, reasons = [], [np.empty(0, np.int64)], []
    for length in np.unique(lengths_N).tolist():
        same_N = lengths_N == length
        if length - kernels.HEADER_BYTES in row_bytes:
            some = values if same_N.all() else compress(values, same_N)
            records, unsound_N = _decode_some(ids_N[same_N], some, length)
            found += [records] if len(records) else []
            reasons += ["its checksum or version is another"] if len(unsound_N) else []
        else:
            unsound_N = ids_N[same_N]
            reasons.append(f"a value of {length} bytes, header and row, is of no precision that the table has")
        corrupt.append(unsound_N)
    return Decoded(found, np.concatenate(corrupt), reasons)


def present(ids_N: Ids, values: Sequence[bytes | None]) -> tuple[Ids, Sequence[bytes]]:
    """Returns the ids and values of those that have a value."""
    if None not in values:
        return ids_N, values  # type: ignore[return-value]  # no None is in it
    here = [value is not None for value in values]
    return ids_N[here], [value for value in values if value is not None]


def _decode_some(ids_N: Ids, values: Iterable[bytes], length: int) -> tuple[Records, Ids]:
    """Decodes values of one length: returns the sound rows, and the ids of the others."""
    values_NV = np.frombuffer(b"".join(values), np.uint8).reshape(len(ids_N), length)
    n = len(ids_N)
    scores_N, stamps_N, sound_N = np.empty(n, np.float32), np.empty(n, np.uint32), np.empty(n, np.bool_)
    rows_NB = np.empty((n, length - kernels.HEADER_BYTES), np.uint8)
    if kernels.decode_values(ids_N, values_NV, scores_N, stamps_N, rows_NB, sound_N):
        return where(Records(ids_N, rows_NB, scores_N, stamps_N), sound_N), ids_N[~sound_N]
    return Records(ids_N, rows_NB, scores_N, stamps_N), ids_N[:0]


def _split(block_NB: npt.NDArray[np.uint8]) -> list[bytes]:
    """Returns the rows of a block as `bytes`."""
    items: list[bytes] = block_NB.view(f"V{block_NB.shape[1]}").reshape(-1).tolist()
    return items
