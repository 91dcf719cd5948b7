"""Synthetic clicks: the skew of their ids, what the teacher promises, what repeats."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process_model import train
from sklearn.metrics import roc_auc_score

from ps.errors import InvalidArgument
from worker.data.skew import Popularity
from worker.data.synthetic import BATCH, Synthetic, spread_ids
from worker.data.teacher import expected_auc
from worker.report.metrics import auc

RANGES = {"top 1 %": (0.43, 0.47), "top 10 %": (0.68, 0.71), "lower half": (0.05, 0.08), "once": (0.34, 0.47)}
"""Shares of the accesses, and for `once` of the ids, among the ids seen in a batch: Meta's published statistics."""


def sample_ids(n, n_ids, seed, batch=None):
    """`n` accesses of one feature, with the published skew in every `batch` of them (by default in all `n`)."""
    popularity = Popularity(n_ids, batch or n)
    return popularity.ids(popularity.ranks(np.random.default_rng(seed), n))


def shares(ids: np.ndarray) -> dict[str, float]:
    counts = np.sort(np.unique(ids, return_counts=True)[1])[::-1]
    seen, accesses = len(counts), counts.sum()
    return {
        "top 1 %": counts[: round(seen / 100)].sum() / accesses,
        "top 10 %": counts[: round(seen / 10)].sum() / accesses,
        "lower half": counts[seen - seen // 2 :].sum() / accesses,
        "once": (counts == 1).mean(),
    }


def assert_in_ranges(ids: np.ndarray, ranges: dict[str, tuple[float, float]], slack: float = 0.0) -> None:
    found = shares(ids)
    outside = {
        what: found[what] for what, (low, high) in ranges.items() if not low - slack <= found[what] <= high + slack
    }
    assert not outside, f"{outside} are outside {ranges}"


def batch_of(source: Synthetic, rows: int = BATCH) -> np.ndarray:
    """All ids of the first rows, of all features."""
    return np.concatenate([block.ids for block in source.blocks(rows)], axis=1)


@pytest.mark.parametrize("total_ids", [5_000_000, 50_000_000])
@pytest.mark.parametrize("drift", [0.0, 2.0])
def test_a_batch_has_the_published_skew(total_ids, drift):
    assert_in_ranges(batch_of(Synthetic(BATCH, total_ids=total_ids, drift=drift)), RANGES)


@pytest.mark.parametrize(
    ("n", "n_ids", "batch"),
    [(100_000, 1_000_000, None), (1_000_000, 1_000_000, None), (1_000_000, 10_000_000, None), (65_536, 10**9, None)],
)
def test_sampled_ids_have_the_published_skew(n, n_ids, batch):
    for seed in range(3):
        ids = sample_ids(n, n_ids, seed, batch)
        assert ids.min() >= 0
        assert ids.max() < n_ids
        assert_in_ranges(ids, RANGES)


def test_a_long_sample_has_the_skew_in_each_batch():
    ids = sample_ids(1_000_000, 2_000_000, seed=4, batch=100_000)
    for part in np.split(ids, 10):
        assert_in_ranges(part, RANGES)


def test_the_skew_is_that_of_the_statistics_files():
    """The ranges above, read again from the files."""
    folder = Path(os.environ.get("EMBEDDING_PS_DATA", "absent")) / "dlrm_locality_stats"
    files = sorted(folder.glob("locality_stats_*.txt"))
    if not files:
        pytest.skip("set EMBEDDING_PS_DATA to a folder that holds dlrm_locality_stats")
    published = [figures for file in files for figures in published_shares(file)]
    assert len(published) > 30
    ranges = {what: (min(p[what] for p in published), max(p[what] for p in published)) for what in RANGES}
    assert_in_ranges(batch_of(Synthetic(BATCH)), ranges, slack=0.01)


def published_shares(file: Path):
    """The same four figures out of the files' two cumulative histograms, over how often an id is seen in a batch."""
    curves = [
        np.array([float(x) for x in ast.literal_eval(text)]) for text in file.read_text().splitlines() if "['" in text
    ]
    for ids, accesses in zip(curves[::2], curves[1::2], strict=True):
        rarest = dict(zip((0.99, 0.9, 0.5), np.interp([0.99, 0.9, 0.5], ids, accesses), strict=True))
        yield {"top 1 %": 1 - rarest[0.99], "top 10 %": 1 - rarest[0.9], "lower half": rarest[0.5], "once": ids[1]}


@pytest.mark.parametrize("n_ids", [1, 2, 63, 64, 65, 1000, 4096])
@pytest.mark.parametrize("drift", [0.0, 0.7])
def test_ranks_and_ids_are_a_bijection_at_every_moment(n_ids, drift):
    popularity = Popularity(n_ids, 1000, seed=5, drift=drift)
    for row in (0, 123_456, 10_000_000):
        ids = popularity.ids(np.arange(n_ids), row)
        assert (np.sort(ids) == np.arange(n_ids)).all()


def test_popular_ids_are_spread_over_all_ids():
    """A range partition of the ids, or their order, says nothing of popularity."""
    ids = Popularity(1_000_000, BATCH).ids(np.arange(1000))
    assert np.histogram(ids, bins=10, range=(0, 1_000_000))[0] == pytest.approx(np.full(10, 100), abs=15)


@pytest.mark.parametrize("drift", [0.25, 1.0])
def test_drift_renews_its_share_of_ids_in_a_million_rows(drift):
    popularity = Popularity(1_000_000, BATCH, drift=drift)
    ranks = np.arange(100_000)
    for start in (0, 3_000_000):
        moved = popularity.ids(ranks, start) != popularity.ids(ranks, start + 1_000_000)
        assert moved.mean() == pytest.approx(drift, abs=0.05)


def test_samples_of_two_seeds_are_of_one_table():
    popular = [set(np.unique(sample_ids(20_000, 100_000, seed), return_counts=True)[0].tolist()) for seed in (1, 2)]
    top = [top_ids(sample_ids(20_000, 100_000, seed), 20) for seed in (1, 2)]
    assert len(top[0] & top[1]) >= 15
    assert popular[0] != popular[1]


def top_ids(ids: np.ndarray, n: int) -> set[int]:
    values, counts = np.unique(ids, return_counts=True)
    return set(values[np.argsort(-counts)[:n]].tolist())


def test_rows_depend_on_the_seed_and_on_nothing_else():
    small = list(Synthetic(40_000, seed=3).batches(1000))
    large = list(Synthetic(40_000, seed=3).batches(17_001))
    assert [len(batch) for batch in large] == [17_001, 17_001, 5998]
    for part in ("dense", "labels"):
        assert torch.equal(torch.cat([getattr(b, part) for b in small]), torch.cat([getattr(b, part) for b in large]))
    ids = [torch.cat([batch.sparse["C7"].ids for batch in batches]) for batches in (small, large)]
    assert torch.equal(*ids)
    other = next(Synthetic(40_000, seed=4).batches(40_000))
    assert not torch.equal(other.sparse["C7"].ids, ids[0])


def test_features_have_ids_of_their_own_within_their_cardinalities():
    source = Synthetic(20_000, total_ids=100_000)
    ids = batch_of(source, 20_000)
    ends = np.cumsum(source.cardinalities)
    assert (ids < ends[:, None]).all()
    assert (ids >= np.concatenate([[0], ends[:-1]])[:, None]).all()


@pytest.mark.parametrize("total_ids", [26, 1000, 5_000_000, 2**31])
def test_ids_are_shared_out_to_the_last(total_ids):
    sizes = spread_ids(total_ids)
    assert len(sizes) == 26
    assert sum(sizes) == total_ids
    assert min(sizes) >= 1


def test_labels_are_drawn_from_the_probabilities():
    source = Synthetic(200_000, seed=8)
    blocks = list(source.blocks(source.len_rows))
    labels = np.concatenate([block.labels for block in blocks])
    true = np.concatenate([source.teacher.probabilities(block.dense, block.ids) for block in blocks])
    assert 0.15 < labels.mean() < 0.4
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1)):
        bucket = (true >= low) & (true < high)
        assert labels[bucket].mean() == pytest.approx(true[bucket].mean(), abs=0.01)
    assert roc_auc_score(labels, true) == pytest.approx(source.best_auc, abs=0.004)


def test_the_expected_auc_is_the_mean_over_drawn_labels():
    rng = np.random.default_rng(0)
    true = np.round(rng.random(3000), 2).astype(np.float32)  # with ties
    drawn = [auc(true, rng.random(3000) < true) for _ in range(200)]
    assert expected_auc(true) == pytest.approx(np.mean(drawn), abs=0.001)


def test_a_model_learns_and_does_not_pass_the_best():
    source = Synthetic(60_000, seed=2, total_ids=30_000)
    learnt = train(source, batch_size=256).auc(source.windows()["second half"])
    assert 0.70 < learnt < source.best_auc + 0.005


def test_wrong_arguments_are_named():
    with pytest.raises(InvalidArgument, match="25 cardinalities"):
        Synthetic(cardinalities=[10] * 25)
    with pytest.raises(InvalidArgument, match="total_ids is 25"):
        Synthetic(total_ids=25)
    with pytest.raises(InvalidArgument, match="rows is -1"):
        Synthetic(-1)
    with pytest.raises(InvalidArgument, match="n_ids is 0"):
        sample_ids(10, 0, seed=0)
    with pytest.raises(InvalidArgument, match="n_ids is 2147483649"):
        sample_ids(10, 2**31 + 1, seed=0)
    with pytest.raises(InvalidArgument, match="drift -1"):
        Synthetic(drift=-1)
