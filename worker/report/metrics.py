"""Progressive metrics: every prediction is made before its row is trained on, so one pass trains and measures.

Predictions and labels are kept (5 bytes a row), so AUC and log loss can be computed exactly over any stretch of rows
afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from ps.errors import InvalidArgument, LengthMismatch

Numbers = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_FIRST_CAPACITY = 65_536


class Progressive:
    """The predictions and labels of a run, in the order in which they came. Not safe for several threads."""

    def __init__(self) -> None:
        self._probabilities_N = np.empty(_FIRST_CAPACITY, dtype=np.float32)
        self._labels_N = np.empty(_FIRST_CAPACITY, dtype=np.bool_)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, probabilities_B: Numbers, labels_B: Numbers) -> None:
        """Appends a batch: probabilities [B] in [0, 1], kept as float32, and labels [B], 0 or 1.

        Raises `LengthMismatch`, and `InvalidArgument` for a value out of range or NaN; nothing is appended then.
        """
        if probabilities_B.shape != labels_B.shape or labels_B.ndim != 1:
            raise LengthMismatch(f"probabilities {probabilities_B.shape}, labels {labels_B.shape}: two [B] are needed")
        if not ((probabilities_B >= 0) & (probabilities_B <= 1)).all():
            raise InvalidArgument("a prediction is NaN or not in [0, 1]; has the model diverged, is it a logit?")
        if not ((labels_B == 0) | (labels_B == 1)).all():
            raise InvalidArgument("a label is neither 0 nor 1")
        end = self._length + len(labels_B)
        self._reserve(end)
        self._probabilities_N[self._length : end] = probabilities_B
        self._labels_N[self._length : end] = labels_B
        self._length = end

    def rows(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Returns the probabilities [N] and labels [N] so far, as views."""
        return self._probabilities_N[: self._length], self._labels_N[: self._length]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Returns a copy of all rows, for a checkpoint."""
        probabilities_N, labels_N = self.rows()
        return {"probabilities": torch.from_numpy(probabilities_N.copy()), "labels": torch.from_numpy(labels_N.copy())}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replaces all rows by saved ones."""
        self._length = 0
        self.add(state["probabilities"].numpy(), state["labels"].numpy().astype(np.float32))

    def auc(self, window: slice = slice(None)) -> float:
        """Returns the area under the ROC curve over a stretch of rows; see `auc`."""
        return auc(self._probabilities_N[: self._length][window], self._labels_N[: self._length][window])

    def log_loss(self, window: slice = slice(None)) -> float:
        """Returns the mean logistic loss over a stretch of rows, in nats; see `log_loss`."""
        return log_loss(self._probabilities_N[: self._length][window], self._labels_N[: self._length][window])

    def _reserve(self, length: int) -> None:
        capacity = len(self._labels_N)
        if length > capacity:
            capacity = max(length, 2 * capacity)
            self._probabilities_N = np.resize(self._probabilities_N, capacity)
            self._labels_N = np.resize(self._labels_N, capacity)


def auc(scores_N: Numbers, labels_N: npt.NDArray[np.bool_]) -> float:
    """Returns the probability that a positive row scores above a negative one, ties counting half: exact, O(N log N).

    It is computed by ranks (Mann and Whitney 1947): (sum of the positives' ranks - P (P + 1) / 2) / (P * Q), where tied
    scores share their mean rank. NaN where one of the two classes is absent.
    """
    positives = int(np.count_nonzero(labels_N))
    negatives = len(labels_N) - positives
    if not positives or not negatives:
        return float("nan")
    order_N = np.argsort(scores_N)
    sorted_N = scores_N[order_N]
    starts_G = np.concatenate([[0], np.flatnonzero(sorted_N[1:] != sorted_N[:-1]) + 1])  # G groups of equal score
    ends_G = np.append(starts_G[1:], len(sorted_N))
    positives_G = np.add.reduceat(labels_N[order_N], starts_G, dtype=np.int64)
    doubled_rank_sum = int(np.dot(positives_G, starts_G + ends_G + 1))  # whole numbers: nothing is rounded
    return (doubled_rank_sum - positives * (positives + 1)) / (2 * positives * negatives)


def log_loss(probabilities_N: Numbers, labels_N: npt.NDArray[np.bool_]) -> float:
    """Returns the mean of -log p(label), in nats; NaN for no rows. Probabilities are clipped by float32's epsilon."""
    if not len(labels_N):
        return float("nan")
    eps = float(np.finfo(np.float32).eps)
    clipped_N = np.clip(probabilities_N.astype(np.float64), eps, 1 - eps)
    return float(-np.log(np.where(labels_N, clipped_N, 1 - clipped_N)).mean())
