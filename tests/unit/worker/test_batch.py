"""The batch type and its hashes: what is refused, what may never change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ps.errors import DtypeMismatch, InvalidArgument, LengthMismatch
from ps.nn.batch import Bags, Batch, FeatureSpec
from worker.data.columns import Columns, rebatch
from worker.data.hashing import cross, field_ids, mix, text_words


def columns(*lengths: int) -> list[Columns]:
    ends = np.cumsum(lengths)
    ids = np.arange(2 * ends[-1]).reshape(2, -1)
    whole = Columns(np.zeros((ends[-1], 3), np.float32), ids, np.zeros(ends[-1], np.float32))
    return [whole.rows(end - length, end) for end, length in zip(ends, lengths, strict=True)]


@pytest.mark.parametrize("lengths", [(10,), (1, 2, 3, 4), (4, 0, 4, 2), (3, 3, 3, 1)])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 11])
def test_blocks_of_any_size_become_batches_of_one_size(lengths, batch_size):
    features = [FeatureSpec("a", "t"), FeatureSpec("b", "t")]
    batches = list(rebatch(columns(*lengths), batch_size, features))
    assert [len(batch) for batch in batches] == [min(batch_size, 10 - start) for start in range(0, 10, batch_size)]
    assert torch.cat([batch.sparse["a"].ids for batch in batches]).tolist() == list(range(10))
    assert torch.cat([batch.sparse["b"].ids for batch in batches]).tolist() == list(range(10, 20))
    for batch in batches:
        assert torch.equal(batch.sparse["b"].offsets, torch.arange(len(batch)))


def test_what_does_not_fit_together_is_refused():
    ids, offsets = torch.tensor([1, 2, 3]), torch.tensor([0, 2])
    bags = Bags(ids, offsets, torch.ones(3))
    assert len(Batch(torch.zeros(2, 1), {"a": bags}, torch.zeros(2))) == 2
    with pytest.raises(DtypeMismatch, match=r"ids is torch\.int32"):
        Bags(ids.int(), offsets)
    with pytest.raises(LengthMismatch, match="2 weights for 3 ids"):
        Bags(ids, offsets, torch.ones(2))
    with pytest.raises(LengthMismatch, match="'a' has 2 samples, labels has 3"):
        Batch(torch.zeros(3, 1), {"a": bags}, torch.zeros(3))
    with pytest.raises(LengthMismatch, match="dense has 1 dimensions"):
        Batch(torch.zeros(2), {"a": bags}, torch.zeros(2))


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 3, 1], r"offsets\[2\] is 1 after 3: offsets must never decrease"),
        ([0, -1], r"offsets\[1\] is -1 after 0"),
        ([-1, 0], r"offsets\[0\] is -1: the first bag must begin at 0"),
        ([1, 2], r"offsets\[0\] is 1"),
        ([0, 2, 5], r"offsets\[2\] is 5, but there are only 4 ids"),
        ([0, 2**62], r"there are only 4 ids"),
        ([], "no offsets for 4 ids"),
    ],
)
def test_offsets_that_part_no_ids_are_refused(offsets, message):
    with pytest.raises(InvalidArgument, match=message):
        Bags(torch.tensor([1, 2, 3, 4]), torch.tensor(offsets, dtype=torch.int64))


def test_bags_without_ids_and_batches_without_bags():
    assert len(Bags.empty(3).offsets) == 3
    assert len(Bags.empty(0).offsets) == 0
    Bags(torch.tensor([1, 2]), torch.tensor([0, 0, 2, 2]))  # empty at both ends
    with pytest.raises(InvalidArgument, match=r"offsets\[0\] is 1"):
        Bags(torch.empty(0, dtype=torch.int64), torch.tensor([1]))


def test_what_is_no_tensor_of_this_host_is_refused():
    offsets = torch.tensor([0, 2])
    with pytest.raises(DtypeMismatch, match="ids is a list, not a torch tensor"):
        Bags([1, 2], offsets)
    with pytest.raises(DtypeMismatch, match="ids is a ndarray"):
        Bags(np.array([1, 2]), offsets)
    with pytest.raises(InvalidArgument, match=r"ids is on meta: batches are CPU tensors, give ids\.cpu\(\)"):
        Bags(torch.empty(3, dtype=torch.int64, device="meta"), offsets)
    for ids in (torch.tensor([1.0]), torch.tensor([True]), torch.tensor([1], dtype=torch.uint64)):
        with pytest.raises(DtypeMismatch):
            Bags(ids, offsets[:1])


def test_hashes_are_what_they_always_were():
    """Rows are found by these numbers in checkpoints of years ago."""
    assert mix(np.array([1], dtype=np.uint64))[0] == 0x5692161D100B05E5
    assert field_ids("carrier", np.array([7]))[0] == -8_088_238_691_234_386_323
    assert text_words(np.array(["UA"]))[0] == -7_520_300_879_229_460_760
    assert cross(np.array([1]), np.array([2]))[0] == 5_886_236_958_684_341_581


def test_mix_is_a_bijection_where_it_can_be_counted():
    """Consecutive words, powers of two and their negatives: all images differ."""
    words = np.unique(np.concatenate([np.arange(100_000), 2 ** np.arange(63), -(2 ** np.arange(63))])).astype(np.uint64)
    assert len(np.unique(mix(words))) == len(words)


def test_a_cross_knows_its_order_and_its_width():
    one, two = np.array([1, 2]), np.array([2, 1])
    words = np.concatenate([cross(one), cross(two), cross(one, two), cross(one, two, two)])
    assert len(np.unique(words)) == 6  # cross(one) and cross(two) hold the same two words
