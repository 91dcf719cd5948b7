"""The hidden model behind synthetic clicks, and the AUC of a model that knows it.

logit = bias + dense · w + the sum of the effects of the ids. An id's effect is a hash of the id, so a teacher of a
billion ids takes no memory and no id's effect depends on which others there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows
from worker.data.hashing import mix


@dataclass(frozen=True)
class Teacher:
    """A linear model with planted weights.

    dense_std, sparse_std: the standard deviation that each of the two parts gives the logit. With the defaults about
    one row in four is a click.
    """

    n_dense: int
    n_sparse: int
    seed: int
    bias: float = -1.4
    dense_std: float = 0.7
    sparse_std: float = 1.0

    @cached_property
    def weights(self) -> Rows:
        """Weights of the dense input: float32 [n_dense]."""
        weights_D = np.random.default_rng([self.seed, 1]).standard_normal(self.n_dense).astype(np.float32)
        norm = float(np.linalg.norm(weights_D))
        return weights_D * np.float32(self.dense_std / norm)

    def effects(self, ids_N: npt.NDArray[np.int64]) -> Rows:
        """Returns what each id adds to the logit: float32 [N], uniform about 0."""
        words_N = ids_N.view(np.uint64) + self._salt
        signed_N = mix(words_N).view(np.int64).astype(np.float32)  # uniform in [-2**63, 2**63)
        signed_N *= np.float32(self.sparse_std * (3.0 / self.n_sparse) ** 0.5 / 2.0**63)
        return signed_N

    def probabilities(self, dense_BD: Rows, ids_FB: npt.NDArray[np.int64]) -> Rows:
        """Returns P(label = 1): float32 [B]."""
        logits_B = dense_BD @ self.weights
        logits_B += np.float32(self.bias)
        for ids_B in ids_FB:
            logits_B += self.effects(ids_B)
        return np.asarray(1 / (1 + np.exp(-logits_B)), dtype=np.float32)

    @cached_property
    def _salt(self) -> np.uint64:
        return np.uint64(mix(np.array([self.seed + 1], dtype=np.uint64))[0])


def expected_auc(probabilities_N: Rows) -> float:
    """Returns the expected AUC of a model that predicts exactly P(label = 1), with labels drawn from it.

    The mean over all pairs of rows of P(i clicks, j does not, i is above j), ties counting half, over P(i clicks, j
    does not). No label is drawn, so the result has little noise. A model can be better only by luck.
    """
    p_N = np.sort(probabilities_N.astype(np.float64))
    below_N = np.cumsum(1 - p_N) - (1 - p_N) / 2  # a row against itself counts half: 1/N of the result at most
    return float(p_N @ below_N / (p_N.sum() * (1 - p_N).sum()))
