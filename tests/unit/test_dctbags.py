"""The long bags of `dctquality`: what they are, and that a trainer pools them where a case says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ps
from benchmarks.quality.dctbags import LONGEST, NAMES, SHORTEST, BagClicks
from benchmarks.quality.dctquality import DIM
from ps.errors import InvalidArgument
from ps.nn import Prefetcher
from ps.nn.feature import Pooled
from worker.data.source import Source
from worker.train.trainer import Trainer

ROWS, IDS = 600, 2_000


def passed(source: Source, pooled: Pooled) -> tuple[list[float], int]:
    """The losses of a pass in batches of 256, and the bytes of rows or sums that were pulled."""
    tables = [ps.TableConfig(name=name, dim=DIM) for name in NAMES]
    with ps.connect("inproc:") as client:
        trainer = Trainer(client, source, tables, 0.02, 0, pooled=pooled)
        losses = [trainer.step(batch) for batch in Prefetcher(source.batches(256), trainer.embeddings, 1)]
        return losses, client.traffic()["received_bytes"]["Pull"]


def test_bags_are_as_long_as_said_and_features_share_no_id() -> None:
    for batch in BagClicks(ROWS, IDS, 1).batches(256):
        for number, name in enumerate(NAMES):
            bags = batch.sparse[name]
            lengths_B = np.diff(bags.offsets.numpy(), append=len(bags.ids))
            assert (lengths_B.min(), lengths_B.max()) == (SHORTEST, LONGEST)
            assert (bags.ids // (IDS // len(NAMES)) == number).all()


def test_all_rows_come_the_same_every_time_and_others_for_another_seed() -> None:
    first, again, other = (list(BagClicks(ROWS, IDS, seed).batches(256)) for seed in (1, 1, 2))
    assert [len(batch) for batch in first] == [256, 256, 88]
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.dense, two.dense)
        assert torch.equal(one.labels, two.labels)
        assert all(torch.equal(one.sparse[name].ids, two.sparse[name].ids) for name in NAMES)
    assert not torch.equal(first[0].dense, other[0].dense)
    with pytest.raises(InvalidArgument, match="batch_size is 0"):
        next(BagClicks(ROWS, IDS, 1).batches(0))


def test_labels_are_drawn_from_the_effects_of_the_ids_of_a_sample() -> None:
    source = BagClicks(8_192, IDS, 1)
    batch = next(source.batches(8_192))
    logits_B = batch.dense.numpy() @ source.teacher.weights
    for bags in batch.sparse.values():
        of_sample_N = np.repeat(np.arange(8_192), np.diff(bags.offsets.numpy(), append=len(bags.ids)))
        logits_B += np.bincount(of_sample_N, source.teacher.effects(bags.ids.numpy()))
    clicked_B = batch.labels.numpy() > 0
    probabilities_B = 1 / (1 + np.exp(-logits_B))
    # five standard deviations of the sum of that many labels, where they are that probable
    assert abs(clicked_B.sum() - probabilities_B.sum()) < 5 * np.sqrt((probabilities_B * (1 - probabilities_B)).sum())
    above_B = probabilities_B > np.median(probabilities_B)
    assert clicked_B[above_B].mean() - clicked_B[~above_B].mean() > 0.2
    assert 0.7 < source.best_auc < 0.9


def test_a_trainer_that_pools_on_the_shards_pulls_sums_and_learns_what_it_learns_by_rows() -> None:
    source = BagClicks(ROWS, IDS, 1)
    by_rows, bytes_of_rows = passed(source, "trainer")
    by_bags, bytes_of_sums = passed(source, "shard")
    np.testing.assert_allclose(by_bags, by_rows, rtol=1e-4)
    sums = 4 * DIM * len(NAMES) * ROWS
    assert sums < bytes_of_sums < 1.1 * sums
    assert bytes_of_rows > 1.1 * sums
