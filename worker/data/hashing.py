"""Makes ids from values: 64-bit hashes that are the same in every process, on every machine, in every release.

A trainer that restarts must find the rows that it trained, so nothing here may change, and Python's own `hash` (salted
in each process) is never used.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xxhash

Uint64 = npt.NDArray[np.uint64]


def mix(values_N: Uint64) -> Uint64:
    """Returns 64-bit words that look random, by a bijection: the finalizer of SplitMix64 (Steele et al., OOPSLA
    2014)."""
    mixed_N = values_N ^ (values_N >> np.uint64(30))
    mixed_N *= np.uint64(0xBF58476D1CE4E5B9)
    mixed_N ^= mixed_N >> np.uint64(27)
    mixed_N *= np.uint64(0x94D049BB133111EB)
    mixed_N ^= mixed_N >> np.uint64(31)
    return mixed_N


def salt(field: str) -> np.uint64:
    """Returns the word that keeps equal values of different fields apart."""
    return np.uint64(xxhash.xxh3_64_intdigest(field.encode()))


def field_ids(field: str, values_N: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Returns the ids of a field's whole-number values: int64 [N]. Different values of a field have different ids."""
    return mix(values_N.astype(np.uint64) ^ salt(field)).view(np.int64)


def text_words(values_N: npt.NDArray[np.str_] | npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    """Returns a 64-bit word for each text: int64 [N]. It is meant for the few distinct values of a column."""
    words = [xxhash.xxh3_64_intdigest(str(value).encode()) for value in values_N]
    return np.array(words, dtype=np.uint64).view(np.int64)


def cross(*columns_N: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Returns one word for each combination of values, in their order: int64 [N]."""
    word_N = np.zeros(len(columns_N[0]), dtype=np.uint64)
    for column_N in columns_N:
        word_N = mix(word_N + np.uint64(0x9E3779B97F4A7C15) ^ column_N.astype(np.uint64))
    return word_N.view(np.int64)
