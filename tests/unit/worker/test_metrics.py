"""AUC and log loss against scikit-learn."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from ps.errors import InvalidArgument, LengthMismatch
from worker.report.metrics import Progressive, auc, log_loss

ROWS = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=60)
"""Nine different scores only: most rows are tied with others."""


@given(ROWS)
def test_auc_with_ties_is_scikit_learns(rows):
    scores = np.array([score / 8 for score, _ in rows], dtype=np.float32)
    labels = np.array([label for _, label in rows])
    if labels.all() or not labels.any():
        assert math.isnan(auc(scores, labels))
    else:
        assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(ROWS)
def test_auc_of_scores_turned_round_is_one_minus_auc(rows):
    scores = np.array([score / 8 for score, _ in rows])
    labels = np.array([label for _, label in rows])
    if labels.any() and not labels.all():
        assert auc(scores, labels) + auc(1 - scores, labels) == pytest.approx(1.0, abs=1e-12)


def test_log_loss_is_scikit_learns_even_for_a_certain_and_wrong_prediction():
    scores = np.array([0.0, 1.0, 0.25, 0.9, 1.0], dtype=np.float32)
    labels = np.array([True, False, False, True, True])
    assert log_loss(scores, labels) == pytest.approx(sklearn_log_loss(labels, scores), rel=1e-6)


def test_windows_of_a_long_run_in_batches_of_many_sizes():
    rng = np.random.default_rng(5)
    scores = rng.random(200_000, dtype=np.float32)
    labels = (rng.random(200_000) < scores).astype(np.float32)
    metrics = Progressive()
    cuts = [0, *np.sort(rng.integers(0, 200_000, 300)), 200_000]
    for start, stop in pairwise(cuts):
        metrics.add(scores[start:stop], labels[start:stop])
    assert len(metrics) == 200_000
    for window in (slice(None), slice(150_000, 200_000), slice(-1000, None)):
        assert metrics.auc(window) == pytest.approx(roc_auc_score(labels[window], scores[window]), abs=1e-12)
        expected = sklearn_log_loss(labels[window], scores[window].astype(np.float64))
        assert metrics.log_loss(window) == pytest.approx(expected, rel=1e-5)


def test_without_rows_or_without_one_class_there_is_no_figure():
    metrics = Progressive()
    assert math.isnan(metrics.auc())
    assert math.isnan(metrics.log_loss())
    metrics.add(np.array([0.5, 0.6]), np.array([1.0, 1.0]))
    assert math.isnan(metrics.auc())
    assert metrics.log_loss() == pytest.approx(-(math.log(0.5) + math.log(0.6)) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("probabilities", "labels", "error"),
    [
        ([0.5, math.nan], [0.0, 1.0], InvalidArgument),
        ([0.5, 1.5], [0.0, 1.0], InvalidArgument),
        ([0.5, 0.5], [0.0, 0.3], InvalidArgument),
        ([0.5], [0.0, 1.0], LengthMismatch),
    ],
)
def test_what_is_no_prediction_or_no_label_is_refused_whole(probabilities, labels, error):
    metrics = Progressive()
    with pytest.raises(error):
        metrics.add(np.array(probabilities), np.array(labels))
    assert len(metrics) == 0
