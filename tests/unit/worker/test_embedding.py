"""EmbeddingBagCollection against torch.nn.functional.embedding_bag, and what happens when things go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait

import numpy as np
import pytest
import torch

import ps
from ps.cluster import inprocess
from ps.errors import InvalidArgument, LengthMismatch
from ps.nn import Bags, EmbeddingBagCollection, Feature, Prefetcher, Threshold
from ps.nn.batch import Batch

DIM = 4
USERS = ps.TableConfig(name="users", dim=DIM, optimizer=ps.SGD(lr=1.0), initializer=ps.Normal(std=1.0))
ITEMS = ps.TableConfig(name="items", dim=DIM, optimizer=ps.SGD(lr=1.0), initializer=ps.Normal(std=1.0))


@pytest.fixture
def client() -> Iterator[ps.Client]:
    with ps.connect("inproc:") as connected:
        yield connected


def bags(*lists: list[int], weights: list[float] | None = None) -> Bags:
    lengths = torch.tensor([len(part) for part in lists])
    ids = torch.tensor([id_ for part in lists for id_ in part], dtype=torch.int64)
    return Bags(ids, torch.cumsum(lengths, 0) - lengths, None if weights is None else torch.tensor(weights))


def pulled(client: ps.Client, table: str, ids: list[int]) -> torch.Tensor:
    return client.pull(table, torch.tensor(ids))


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_forward_pools_bags_and_an_empty_bag_is_zero(client: ps.Client, pooling: str) -> None:
    layer = EmbeddingBagCollection(client, [USERS], [Feature("f", "users", pooling)])
    out = layer({"f": bags([1, 2, 2], [], [-7])})
    one, two, minus_seven = pulled(client, "users", [1, 2, -7])
    total = one + 2 * two
    expected = torch.stack([total if pooling == "sum" else total / 3, torch.zeros(DIM), minus_seven])
    torch.testing.assert_close(out.detach()[:, 0], expected)


def test_backward_sends_the_summed_gradient_of_each_id_once(client: ps.Client) -> None:
    users = USERS.model_copy(update={"importance": ps.Importance(frequency=0, occurrences=1)})
    layer = EmbeddingBagCollection(client, [users], [Feature("a", "users"), Feature("b", "users")])
    before = pulled(client, "users", [1, 2, 3])
    out = layer({"a": bags([1, 1], [2]), "b": bags([1], [3], weights=[0.5, 2.0])})
    out.sum().backward()
    layer.step()
    change = before - pulled(client, "users", [1, 2, 3])
    torch.testing.assert_close(change, torch.tensor([[2.5], [1.0], [2.0]]).expand(3, DIM), rtol=0, atol=1e-6)
    table = client.stats()["shards"][0]["tables"]["users"]
    assert (table["pushes"], table["rows_updated"]) == (1, 3), "two features of one table are one push of unique ids"
    frequency = {
        int(i): float(s) for ids, _, scores in client.export("users") for i, s in zip(ids, scores, strict=True)
    }
    assert frequency == {1: 3.0, 2: 1.0, 3: 1.0}, "occurrences before deduplication"


def test_labels_say_which_ids_are_positive_and_change_no_value(client: ps.Client) -> None:
    weighed = ps.Importance(frequency=1, positives=10)
    users = [USERS.model_copy(update={"name": name, "importance": weighed}) for name in ("told", "untold")]
    items = [ITEMS.model_copy(update={"name": name}) for name in ("items_told", "items_untold")]
    seen = []
    for table, plain, labels in zip(users, items, (torch.tensor([1.0, 0.0, 1.0]), None), strict=True):
        features = [Feature("a", table.name), Feature("b", table.name, "mean"), Feature("c", plain.name)]
        layer = EmbeddingBagCollection(client, [table, plain], features)
        client.upsert(table.name, [1, 2, 3], torch.eye(3, DIM))
        client.upsert(plain.name, [1], torch.ones(1, DIM))
        out = layer({"a": bags([1, 1], [2], []), "b": bags([1], [3], [2, 3]), "c": bags([1], [1], [1])}, labels)
        out.square().sum().backward()
        layer.step()
        seen.append((out.detach(), pulled(client, table.name, [1, 2, 3]), pulled(client, plain.name, [1])))
    for told, untold in zip(*seen, strict=True):
        assert torch.equal(told, untold)
    scores = {name: dict(zip(*map(list, next(client.export(name))[::2]), strict=True)) for name in ("told", "untold")}
    assert scores == {"told": {1: 32.0, 2: 12.0, 3: 12.0}, "untold": {1: 2.0, 2: 2.0, 3: 2.0}}
    with pytest.raises(LengthMismatch, match="2 labels for a batch of 3"):
        layer({"a": bags([1], [1], [1]), "b": bags([1], [1], [1]), "c": bags([1], [1], [1])}, torch.ones(2))


def test_a_table_that_the_loss_does_not_use_holds_nobody_up(client: ps.Client) -> None:
    layer = EmbeddingBagCollection(client, [USERS, ITEMS])
    before = pulled(client, "users", [1])
    layer({"users": bags([1]), "items": bags([1])})[:, 0].sum().backward()
    layer.step()
    torch.testing.assert_close(before - pulled(client, "users", [1]), torch.ones(1, DIM))


def test_eval_and_no_grad_send_nothing(client: ps.Client) -> None:
    layer = EmbeddingBagCollection(client, [USERS])
    with torch.no_grad():
        layer({"users": bags([1])})
    layer.eval()
    assert not layer({"users": bags([1])}).requires_grad
    layer.step()
    assert client.size("users") == 0


def test_a_push_that_fails_is_raised_by_step_and_else_by_the_next_forward(client: ps.Client) -> None:
    layer = EmbeddingBagCollection(client, [USERS])

    def failing_backward() -> None:
        (layer({"users": bags([1])}) * float("nan")).sum().backward()

    failing_backward()
    with pytest.raises(ps.NonFiniteGradient):
        layer.step()
    layer.step()  # it is told once
    failing_backward()
    layer.send()
    wait(layer._sender.on_their_way)
    with pytest.raises(ps.NonFiniteGradient):
        layer({"users": bags([1])})
    assert client.size("users") == 0


def test_bad_input_is_named(client: ps.Client) -> None:
    layer = EmbeddingBagCollection(client, [USERS], [Feature("f", "users", "mean"), Feature("g", "users")])
    with pytest.raises(InvalidArgument, match=r"lacks the features \['g'\]"):
        layer({"f": bags([1])})
    with pytest.raises(InvalidArgument, match="batch sizes"):
        layer({"f": bags([1]), "g": bags([1], [2])})
    with pytest.raises(InvalidArgument, match="'f': per-sample weights"):
        layer({"f": bags([1], weights=[1.0]), "g": bags([1])})
    with pytest.raises(InvalidArgument, match=r"tables \['nowhere'\]"):
        EmbeddingBagCollection(client, [USERS], [Feature("f", "nowhere")])
    with pytest.raises(InvalidArgument, match="one collection has one dim"):
        EmbeddingBagCollection(client, [USERS, ps.TableConfig(name="wide", dim=9)])


def test_prefetching_changes_no_value(client: ps.Client) -> None:
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(0, 20, (30, 8)))
    batches = [Batch(torch.zeros(8, 1), {"t": Bags(row, torch.arange(8))}, torch.zeros(8)) for row in ids]
    finals = []
    for depth in (0, 1, 5):
        config = ps.TableConfig(name=f"t{depth}", dim=DIM, optimizer=ps.SGD(lr=0.1), initializer=ps.Constant(value=1.0))
        layer = EmbeddingBagCollection(client, [config], [Feature("t", config.name)])
        seen = 0
        for batch in Prefetcher(batches, layer, depth):
            layer(batch.sparse).square().sum().backward()
            layer.step()
            seen += 1
        assert seen == len(batches)
        finals.append(pulled(client, config.name, list(range(20))))
    assert torch.equal(finals[0], finals[1])
    assert torch.equal(finals[0], finals[2])


def test_a_flush_of_more_than_a_shard_takes_at_once_goes_in_pieces() -> None:
    wide = USERS.model_copy(update={"dim": 64})
    address = inprocess.start(ps.ServiceConfig(limits={"max_body_bytes": 1 << 20}))
    ids = list(range(20_000))  # 5 MB of gradients
    with ps.connect(address) as client:
        layer = EmbeddingBagCollection(client, [wide], sparsify=Threshold(100.0))
        for start in range(0, len(ids), 2000):
            part = [[i] for i in ids[start : start + 2000]]
            client.upsert("users", np.array(part).reshape(-1), np.zeros((2000, 64)))
            layer({"users": bags(*part)}).sum().backward()
            layer.step()
        assert not pulled(client, "users", ids[:10]).any(), "all of it is held back"
        layer.flush()
        for start in range(0, len(ids), 2000):
            torch.testing.assert_close(pulled(client, "users", ids[start : start + 2000]), -torch.ones(2000, 64))
        layer.flush()  # nothing is left
        assert client.stats()["shards"][0]["tables"]["users"]["rows_updated"] == len(ids)
