"""Tables that the shards pool: when, and that nothing changes by it but the bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ps
from ps.client.bags import split_bags
from ps.nn import Bags, EmbeddingBagCollection, Feature, Hold, Threshold, TopK
from ps.nn.embedding.pooled import bytes_by_bags
from ps.nn.sparsify.thresholds import Sparsify
from ps.wire.bags import PooledBags
from ps.wire.routing import Routing, ShardInfo, split_by_shard
from tests.loopback.tables import DIM, contents, summing


@pytest.fixture(scope="module")
def client() -> Iterator[ps.Client]:
    with ps.connect("inproc:") as connected:
        yield connected


def fresh(client: ps.Client, name: str = "t") -> ps.TableConfig:
    client.drop_table(name, missing_ok=True)
    return summing(name)


def drawn(rng: np.random.Generator, batch: int = 12, most: int = 9, ids: int = 40) -> Bags:
    lengths_B = rng.integers(0, most, batch)
    return Bags(
        torch.from_numpy(rng.integers(0, ids, lengths_B.sum())), torch.from_numpy(np.cumsum(lengths_B) - lengths_B)
    )


def one_id_each(batch: int = 12) -> Bags:
    return Bags(torch.arange(batch), torch.arange(batch))


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 3, 40])
def test_the_bytes_expected_of_bags_are_those_that_they_take(shards: int, length: int) -> None:
    rng = np.random.default_rng(0)
    ids_U = rng.permutation(100_000)[:4000]
    lengths_B = rng.integers(1, 2 * length, 500)
    bags = PooledBags(rng.integers(0, 4000, lengths_B.sum()), lengths_B)
    split = split_by_shard(ids_U, Routing.even(1, [ShardInfo(number, "") for number in range(shards)]))
    found = 0
    for shard, part in enumerate(split_bags(bags, split)):
        found += len(part.encoded(len(split.ids_N[split.of(shard)]))) + len(part) * 4 * 16 * 2
    assert bytes_by_bags(4000, bags, shards, 2 * 4 * 16) == pytest.approx(found, rel=0.03)


def chosen(client: ps.Client, features: list[Feature], **sparse: Bags) -> set[str]:
    tables = {feature.table: fresh(client, feature.table) for feature in features}
    return set(EmbeddingBagCollection(client, list(tables.values()), features).prepare(sparse).pooled)


def test_a_table_is_pooled_by_the_shards_if_all_its_features_may_be_and_bytes_say_so(client: ps.Client) -> None:
    rng = np.random.default_rng(0)
    long = Bags(torch.from_numpy(rng.permutation(1200)), torch.arange(0, 1200, 100))
    short = one_id_each()
    weighted = Bags(long.ids, long.offsets, torch.ones(1200))
    assert chosen(client, [Feature("a", "t", pooled="auto")], a=long) == {"t"}
    assert chosen(client, [Feature("a", "t", pooled="auto")], a=short) == set()
    assert chosen(client, [Feature("a", "t", pooled="shard")], a=short) == {"t"}
    assert chosen(client, [Feature("a", "t")], a=long) == set()
    both = [Feature("a", "t", pooled="auto"), Feature("b", "t", "mean", pooled="shard")]
    assert chosen(client, both, a=long, b=short) == {"t"}
    assert chosen(client, [both[0], Feature("b", "t")], a=long, b=short) == set()
    assert chosen(client, both, a=long, b=weighted) == set(), "the shards know no weights"
    assert chosen(client, [both[0], Feature("b", "u")], a=long, b=short) == {"t"}
    with pytest.raises(ps.InvalidArgument, match="'sometimes': choose one of"):
        Feature("a", "t", pooled="sometimes")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_pooled_here_or_there_rows_sums_and_counts_are_the_same(client: ps.Client, seed: int) -> None:
    """Two features of one table, labels, and bags without ids. Lengths of means are powers of 2, so all is exact."""
    rng, found = np.random.default_rng(seed), []
    batches = []
    for _ in range(3):
        lengths_B = rng.choice([0, 1, 2, 4], 12)
        mean = Bags(
            torch.from_numpy(rng.integers(0, 40, lengths_B.sum())), torch.from_numpy(np.cumsum(lengths_B) - lengths_B)
        )
        weights = torch.from_numpy(rng.integers(-4, 5, (12, 2, DIM)).astype(np.float32))
        batches.append(({"a": drawn(rng), "b": mean}, weights, torch.from_numpy(rng.integers(0, 2, 12))))
    for pooled in ("trainer", "shard"):
        table = fresh(client).model_copy(update={"importance": ps.Importance(frequency=1, positives=3)})
        features = [Feature("a", "t", pooled=pooled), Feature("b", "t", "mean", pooled=pooled)]
        layer, outs = EmbeddingBagCollection(client, [table], features), []
        for sparse, weights, labels in batches:
            out = layer(sparse, labels)
            (out * weights).sum().backward()
            layer.step()
            outs.append(out.detach())
        scores = {int(id_): s for ids, _, scores in client.export("t") for id_, s in zip(ids, scores, strict=True)}
        found.append((torch.stack(outs), contents(client, "t"), scores))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_a_batch_without_ids_and_evaluation_are_served(client: ps.Client) -> None:
    layer = EmbeddingBagCollection(client, [fresh(client)], [Feature("a", "t", "mean", pooled="shard")])
    nothing = Bags(torch.zeros(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    out = layer({"a": nothing})
    assert torch.equal(out, torch.zeros(3, 1, DIM))
    out.sum().backward()
    layer.step()
    layer.eval()
    assert not layer({"a": drawn(np.random.default_rng(0))}).requires_grad
    assert client.size("t") == 0


SPARSIFY = [
    TopK(density=0.2, hold=None),
    TopK(density=0.2, by="elements", hold=None),
    Threshold(6.0),
    Threshold(3.0, by="elements"),
]


@pytest.mark.parametrize("sparsify", SPARSIFY, ids=str)
def test_what_is_not_sent_of_a_bag_is_held_by_row_and_nothing_is_lost(client: ps.Client, sparsify: Sparsify) -> None:
    """Integers, so that sums are exact; batches go by bags and by rows in turn. New rows are there at once."""
    rng, expected = np.random.default_rng(0), np.zeros((40, DIM))
    seen: set[int] = set()
    features = [Feature("a", "t", pooled="auto")]
    layer = EmbeddingBagCollection(client, [fresh(client)], features, sparsify=sparsify)
    ways = []
    for number in range(30):
        bags = drawn(rng, batch=3, most=20) if number % 3 else drawn(rng, batch=40, most=2)
        weights = torch.from_numpy(rng.integers(-4, 5, (len(bags.offsets), DIM)).astype(np.float32))
        prepared = layer.prepare({"a": bags})
        ways.append(bool(prepared.pooled))
        (layer(prepared)[:, 0] * weights).sum().backward()
        layer.step()
        lengths_B = np.diff(bags.offsets.numpy(), append=len(bags.ids))
        np.subtract.at(expected, bags.ids.numpy(), np.repeat(weights.numpy(), lengths_B, axis=0))
        seen |= set(bags.ids.tolist())
        assert set(contents(client, "t")) == seen
    assert set(ways) == {True, False}
    held = expected - client.pull("t", np.arange(40))
    assert np.abs(held).sum() > 0
    layer.flush()
    assert (client.pull("t", np.arange(40)) == expected).all()


def test_by_default_bags_are_sent_whole_and_what_was_held_of_their_rows_goes_when_it_is_due(client: ps.Client) -> None:
    """A bag does not come again. What rows of steps without bags had held back is sent all the same."""
    layer = EmbeddingBagCollection(
        client, [fresh(client)], [Feature("a", "t", pooled="auto")], sparsify=TopK(0.01, hold=Hold(0.3, 4))
    )
    singles = Bags(torch.arange(40), torch.arange(40))
    bag = Bags(torch.arange(40).repeat(2), torch.tensor([0]))
    for _ in range(40):
        (layer({"a": singles}) * torch.arange(1, 41)[:, None, None]).sum().backward()
        layer.step()
    held = layer._pushes.sparsifiers["t"].rows_held
    assert held > 0
    for _ in range(4):
        prepared = layer.prepare({"a": bag})
        assert prepared.pooled
        layer(prepared).sum().backward()
        layer.step()
        assert layer._pushes.sparsifiers["t"].rows_held <= held  # nothing more is
    assert layer._pushes.sparsifiers["t"].rows_held == 0
    expected = np.repeat(-40.0 * np.arange(1, 41) - 8, DIM).reshape(40, DIM)
    np.testing.assert_allclose(client.pull("t", np.arange(40)), expected)


def test_gradients_that_the_wire_masks_are_held_back_too() -> None:
    with ps.connect("inproc:", wire_dtype=ps.ByImportance(share=1.0, mask_below=3.0)) as client:
        layer = EmbeddingBagCollection(client, [fresh(client)], [Feature("a", "t", pooled="shard")])
        for _ in range(2):
            layer({"a": Bags(torch.tensor([1, 2, 1]), torch.tensor([0, 2]))}).sum().mul(2).backward()
            layer.step()
        layer.flush()
        assert contents(client, "t") == {1: [-8.0] * DIM, 2: [-4.0] * DIM}


def test_a_gradient_that_is_not_finite_is_refused_and_spoils_no_threshold(client: ps.Client) -> None:
    layer = EmbeddingBagCollection(
        client, [fresh(client)], [Feature("a", "t", pooled="shard")], sparsify=TopK(density=0.5)
    )
    bags = Bags(torch.tensor([1, 2, 1]), torch.tensor([0, 2]))
    (layer({"a": bags})[:, 0] * torch.tensor([[1.0], [float("nan")]])).sum().backward()
    with pytest.raises(ps.NonFiniteGradient, match="nan in bag 1; nothing was sent"):
        layer.step()
    for _ in range(2):
        layer({"a": bags}).sum().backward()
        layer.step()
    layer.flush()
    assert contents(client, "t") == {1: [-4.0] * DIM, 2: [-2.0] * DIM}


def test_sums_come_with_their_largest_elements_and_whole_where_the_threshold_is_estimated(client: ps.Client) -> None:
    features = [Feature("a", "t", pooled="shard"), Feature("b", "u", pooled="shard")]
    configs = {"t": TopK(density=0.25, by="elements", reestimate_every=3)}
    tables = [fresh(client, name) for name in ("t", "u")]
    layer = EmbeddingBagCollection(client, tables, features, mask_sums=configs)
    rows_UD = np.arange(1, 161, dtype=np.float32).reshape(40, DIM)
    for name in ("t", "u"):
        client.upsert(name, np.arange(40), rows_UD)
    bags = Bags(torch.arange(40), torch.arange(40))
    for step in range(12):
        out = layer({"a": bags, "b": bags}).detach().numpy()
        assert (out[:, 1] == rows_UD).all()
        masked = step not in (0, 1, 2, 4, 7, 10)
        assert (out[:, 0] == np.where(masked & (rows_UD < 121), 0, rows_UD)).all(), step
    layer.eval()
    assert (layer({"a": bags, "b": bags}).numpy()[:, 0] == rows_UD).all()
    with pytest.raises(ps.InvalidArgument, match="element by element"):
        EmbeddingBagCollection(client, tables, features, mask_sums=TopK())
    with pytest.raises(ps.InvalidArgument, match=r"mask_sums names tables \['x'\]"):
        EmbeddingBagCollection(client, tables, features, mask_sums={"x": TopK(by="elements")})
