"""The frequent rows of a TensorTrainEmbeddingBag, outside of its cores: chosen, trained, put back."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ps.nn import TensorTrainEmbeddingBag
from ps.nn.tensor_train import cache as tensor_train_cache
from ps.nn.tensor_train.cache import EMPTY, Frequencies, Places
from tests.unit.worker.tt_reference import OPTIMIZERS, cores_of, enlarge

close = torch.testing.assert_close
NONE = torch.zeros(0, dtype=torch.int64)


def note(frequencies, ids):
    frequencies.note(*torch.unique(torch.tensor(ids, dtype=torch.int64), return_counts=True))


def module(**arguments):
    made = TensorTrainEmbeddingBag(
        1000, 8, [4, 4], **{"use_cache": True, "cache_size": 3, "optimizer": OPTIMIZERS["adagrad"], **arguments}
    )
    enlarge(made)
    return made


def use(bag, *ids):
    """One training lookup without a gradient."""
    bag(torch.tensor([list(ids)]))


@given(st.lists(st.lists(st.integers(0, 20), max_size=30), max_size=6), st.sets(st.integers(0, 25)))
def test_ids_are_ranked_by_how_often_they_came(batches, cached):
    frequencies, counts = Frequencies(4), Counter()
    for batch in batches:
        note(frequencies, batch)
        counts.update(batch)
    ranked = frequencies.rank(torch.tensor(sorted(cached), dtype=torch.int64)).tolist()
    assert ranked == sorted({*counts, *cached}, key=lambda id_: (-counts[id_], id_ not in cached, id_))
    frequencies.halve()
    halved = {id_: count // 2 for id_, count in counts.items() if count > 1}
    assert frequencies.rank(NONE).tolist() == sorted(halved, key=lambda id_: (-halved[id_], id_))


def test_rare_ids_are_forgotten_and_frequent_ones_are_not(monkeypatch):
    monkeypatch.setattr(tensor_train_cache, "FEWEST", 8)
    frequencies = Frequencies(0)
    for start in range(0, 400, 4):
        note(frequencies, [-1, -1, -2, *range(start, start + 4)])
    ranked = frequencies.rank(NONE)
    assert ranked[:2].tolist() == [-1, -2]
    assert len(ranked) == 8


@given(st.lists(st.integers(0, 2**40), unique=True, min_size=1), st.lists(st.integers(0, 2**40)), st.integers(0, 3))
def test_places_are_found(ids, others, empty):
    held = ids + [EMPTY] * empty
    asked = torch.tensor(ids + others, dtype=torch.int64)
    found = Places(torch.tensor(held)).find(asked)
    assert found.tolist() == [ids.index(id_) if id_ in ids else -1 for id_ in asked.tolist()]


def test_a_cache_of_nothing_but_empty_places_finds_nothing():
    assert Places(torch.tensor([EMPTY, EMPTY])).find(torch.tensor([0, 5])).tolist() == [-1, -1]


@pytest.mark.parametrize("sparse", [True, False])
def test_the_most_frequent_rows_are_lifted_and_read_the_same(sparse):
    bag = module(sparse=sparse, optimizer=OPTIMIZERS["adagrad"] if sparse else None)
    use(bag, 7, 7, 7, 8, 8, 900, 900, 900, 900, 1, 2)
    before = bag.full_weight()
    bag.cache_populate()
    assert sorted(bag.cache_ids.tolist()) == [7, 8, 900]
    assert torch.equal(bag.full_weight(), before)
    assert bag.fold_error is None


def test_cached_rows_are_trained_as_rows_of_any_table():
    """And the cores are not: the rows of the batch are all in the cache."""
    bag = module()
    use(bag, 7, 8, 9)
    bag.cache_populate()
    rule, cores = bag.optimizer, [core.clone() for core in cores_of(bag)]
    value = bag.full_weight()[[7, 8]]
    h = torch.full((2, 8), rule.initial_accumulator)
    for _ in range(2):
        bag(torch.tensor([[7, 7], [8, 7]])).backward(torch.tensor([[1.0], [2.0]]).expand(2, 8))
        grads = torch.tensor([[4.0], [2.0]])  # 7 comes twice in the first bag and once in the second
        h += grads**2
        value -= rule.lr * grads / (h.sqrt() + rule.eps)
    close(bag.full_weight()[[7, 8]], value)
    assert all(torch.equal(*pair) for pair in zip(cores, cores_of(bag), strict=True))


def test_cached_rows_get_gradients_of_their_own():
    bag = module(sparse=False, optimizer=None)
    use(bag, 7, 8, 9)
    bag.cache_populate()
    bag(torch.tensor([[7, 7, 500]])).sum().backward()
    slot = bag.cache_ids.tolist().index(7)
    expected = torch.zeros(3, 8)
    expected[slot] = 2
    assert torch.equal(bag.cache_weight.grad, expected)
    alone = module(sparse=False, optimizer=None, use_cache=False, cache_size=0)
    alone(torch.tensor([[500]])).sum().backward()
    assert all(torch.equal(getattr(bag, f"core{k}").grad, getattr(alone, f"core{k}").grad) for k in range(3))


def test_rows_that_stay_keep_value_and_state_and_place():
    bag = module()
    use(bag, 7, 7, 8, 8, 9)
    bag.cache_populate()
    bag(torch.tensor([[7, 8, 9]])).sum().backward()
    places = {id_: slot for slot, id_ in enumerate(bag.cache_ids.tolist())}
    before = bag.cache_weight.clone()
    use(bag, 7, 8, *[30] * 9)
    bag.cache_populate()
    assert bag.cache_ids.tolist() == [30 if id_ == 9 else id_ for id_ in sorted(places, key=places.__getitem__)]
    for id_ in (7, 8):
        assert torch.equal(bag.cache_weight[places[id_]], before[places[id_]])
    assert (bag.cache_weight[places[9], 8:] == bag.optimizer.initial_accumulator).all()


@pytest.mark.parametrize("tolerance", [math.inf, 0])
def test_a_row_that_leaves_is_put_back_into_the_cores_and_the_error_is_what_it_says(tolerance):
    bag = module(fold_tolerance=tolerance)
    use(bag, 7, 8, 9)
    bag.cache_populate()
    for _ in range(5):
        bag(torch.tensor([[7, 8, 9]])).sum().backward()
    trained = bag.full_weight()[[7, 8, 9]]
    use(bag, *[105, 106, 107] * 9)
    lifted = bag.full_weight()[[105, 106, 107]]
    bag.cache_populate()
    assert sorted(bag.cache_ids.tolist()) == [105, 106, 107]
    assert torch.equal(bag.full_weight()[[105, 106, 107]], lifted)  # though they share the slice that moves
    found = bag.full_weight()[[7, 8, 9]]
    errors = (found - trained).norm(dim=1) / trained.norm(dim=1)
    assert bag.fold_error.rows == 3
    close(bag.fold_error.mean, float(errors.mean()), rtol=1e-3, atol=1e-5)
    close(bag.fold_error.max, float(errors.max()), rtol=1e-3, atol=1e-5)
    untouched = module().full_weight()[[7, 8, 9]]
    without = (untouched - trained).norm(dim=1) / trained.norm(dim=1)
    if tolerance:
        assert errors.mean() < without.mean()
    else:  # nothing is as near as that, so nobody is moved
        assert torch.equal(found, untouched)


def test_an_untrained_row_goes_back_without_error():
    bag = module(cache_size=1)
    use(bag, 7)
    bag.cache_populate()
    before = bag.full_weight()
    use(bag, 8, 8, 8)
    bag.cache_populate()
    assert bag.fold_error.max < 1e-5
    close(bag.full_weight(), before)


def test_rows_stay_while_nobody_wants_their_place():
    bag = module()
    use(bag, 7, 8, 9)
    for _ in range(5):
        bag.cache_populate()
    assert sorted(bag.cache_ids.tolist()) == [7, 8, 9]
    use(bag, 1, 1)
    bag.cache_populate()
    assert bag.cache_ids.tolist().count(1) == 1


def test_a_refresh_comes_by_itself():
    bag = module(refresh_every=3)
    for _ in range(2):
        use(bag, 7)
        assert bag.cache_ids.tolist() == [EMPTY] * 3
    use(bag, 7)
    assert 7 in bag.cache_ids.tolist()


def test_a_refresh_between_forward_and_backward_sends_gradients_where_the_rows_are_then():
    bag, twin = module(cache_size=1), module(cache_size=1)
    for side in (bag, twin):
        use(side, 7)
        side.cache_populate()
        use(side, 8, 8, 8)
    out = bag(torch.tensor([[7], [8]]))
    use(twin, 7, 8)
    for side in (bag, twin):
        side.cache_populate()
        assert side.cache_ids.tolist() == [8]
    out.backward(torch.ones(2, 8))
    twin(torch.tensor([[7], [8]])).backward(torch.ones(2, 8))
    assert torch.equal(bag.full_weight(), twin.full_weight())


def test_without_a_cache_there_is_nothing_to_refresh():
    bag = module(use_cache=False, cache_size=0)
    before = bag.full_weight()
    bag.cache_populate()
    assert torch.equal(bag.full_weight(), before)
