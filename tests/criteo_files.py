"""Writes files in Criteo's format with a planted signal, to train on where the real logs are not at hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ps.errors import InvalidArgument
from worker.data.criteo_parser import N_HEXES, N_INTEGERS
from worker.data.hashing import mix
from worker.data.skew import Popularity
from worker.data.teacher import Teacher, expected_auc


def write_criteo(path: str | Path, rows: int, seed: int, missing: float = 0.1, ids_per_field: int = 1000) -> float:
    """Writes `rows` lines, gzipped if the name ends in .gz, and returns the AUC of the true probabilities.

    Labels are drawn from a `Teacher` over the complete rows; then a share `missing` of all fields is left empty, so a
    reader of the file can reach a little less than that AUC. The same arguments write the same lines. Raises
    `InvalidArgument` for a share out of [0, 1].
    """
    if not 0 <= missing <= 1:
        raise InvalidArgument(f"missing is {missing}; it is a share, from 0 to 1")
    path, rng = Path(path), np.random.default_rng(seed)
    integers_BI = np.floor(np.exp(rng.normal(1.0, 1.5, (rows, N_INTEGERS)))).astype(np.int64) - 1  # -1 upwards
    hexes_HB = np.stack([_hexes(rng, rows, ids_per_field, field) for field in range(N_HEXES)])
    teacher = Teacher(N_INTEGERS, N_HEXES, seed)
    dense_BI = np.log1p(np.maximum(integers_BI, 0)).astype(np.float32) - np.float32(1.4)  # about their mean
    probabilities_B = teacher.probabilities(dense_BI, hexes_HB)
    labels_B = rng.random(rows) < probabilities_B
    fields_BF = np.concatenate(
        [labels_B[:, None].astype(np.int64).astype(np.str_), integers_BI.astype(np.str_), _text(hexes_HB).T], axis=1
    )
    fields_BF[:, 1:][rng.random((rows, N_INTEGERS + N_HEXES)) < missing] = ""
    text = "".join("\t".join(fields_F) + "\n" for fields_F in fields_BF.tolist())
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())
    return expected_auc(probabilities_B)


def _hexes(rng: np.random.Generator, rows: int, n_ids: int, field: int) -> npt.NDArray[np.int64]:
    """Returns values of 32 bits that are skewed like real accesses; equal ids of different fields have different
    values."""
    popularity = Popularity(n_ids, rows, seed=field)
    words_B = popularity.ids(popularity.ranks(rng, rows)).astype(np.uint64) + np.uint64(field << 32)
    return (mix(words_B) >> np.uint64(32)).astype(np.int64)


def _text(hexes_HB: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    """Returns numbers as the logs have them: eight hex digits, with leading zeros."""
    return np.array([[f"{value:08x}" for value in hexes_B] for hexes_B in hexes_HB.tolist()], dtype=np.str_)
