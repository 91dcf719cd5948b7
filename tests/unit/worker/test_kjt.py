"""KeyedJaggedTensors as bags: all that the class can say, and what must not be taken for something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import ps
from ps.errors import DtypeMismatch, InvalidArgument, LengthMismatch
from ps.nn import Bags, EmbeddingBagCollection, Feature
from ps.nn.embedding.kjt import bags_of

DIM = 2


class Jagged:
    """The part of a KeyedJaggedTensor's interface that is used, for machines without torchrec."""

    def __init__(
        self,
        keys: list[str],
        values: Any,
        lengths: Any,
        weights: Any = None,
        strides: list[int] | None = None,
        inverse: tuple[list[str], Any] | None = None,
    ) -> None:
        self._keys, self._values, self._weights = keys, torch.as_tensor(values), weights
        self._lengths, self._strides, self._inverse = torch.as_tensor(lengths), strides, inverse

    def keys(self) -> list[str]:
        return self._keys

    def values(self) -> torch.Tensor:
        return self._values

    def lengths(self) -> torch.Tensor:
        return self._lengths

    def weights_or_none(self) -> torch.Tensor | None:
        return self._weights

    def variable_stride_per_key(self) -> bool:
        return self._strides is not None

    def stride_per_key(self) -> list[int] | None:
        return self._strides

    def inverse_indices_or_none(self) -> tuple[list[str], torch.Tensor] | None:
        return self._inverse


def lists(bags: Bags) -> list[list[int]]:
    return [part.tolist() for part in torch.tensor_split(bags.ids, bags.offsets)[1:]]


def test_ids_of_any_integer_type_are_taken() -> None:
    for dtype in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.uint32, torch.uint64):
        bags = bags_of(Jagged(["f"], torch.tensor([1, 200, 3], dtype=torch.float64).to(dtype), [2, 1]))["f"]
        assert bags.ids.dtype == torch.int64
        assert lists(bags) == [[1, 200], [3]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.tensor([16777217.0]), "ids of dtype float32"),
        (torch.tensor([float("nan")]), "ids of dtype float32"),
        (torch.tensor([7.0], dtype=torch.float64), "ids of dtype float64"),
        (torch.tensor([7.0], dtype=torch.bfloat16), "BFloat16"),
        (torch.tensor([True]), "ids of dtype bool"),
        (torch.tensor([2**63 + 5], dtype=torch.uint64), str(2**63 + 5)),
    ],
)
def test_what_is_no_id_is_refused(values: torch.Tensor, message: str) -> None:
    with pytest.raises(DtypeMismatch, match=message):
        bags_of(Jagged(["f"], values, [1]))


@pytest.mark.parametrize(
    ("jagged", "error", "message"),
    [
        (Jagged(["f"], [1, 2, 3], [1, 1]), LengthMismatch, "sum to 2, but it has 3 values"),
        (Jagged(["f"], [1, 2, 3], [2, -1, 2]), InvalidArgument, "a bag of -1 ids"),
        (Jagged(["f"], [1, 2, 3], [1.0, 2.0]), DtypeMismatch, "lengths .* float32"),
        (Jagged(["f", "g"], [1, 2, 3], [1, 1, 1]), LengthMismatch, "3 lengths for 2 features"),
        (Jagged([], [1], [1]), LengthMismatch, "1 lengths for 0 features"),
        (Jagged(["f", "f"], [1, 2], [1, 1]), InvalidArgument, r"several features named \['f'\]"),
        (Jagged(["f"], [[1, 2]], [2]), LengthMismatch, r"shape \(1, 2\)"),
        (Jagged(["f"], [1, 2], [2], torch.ones(1)), LengthMismatch, "1 weights for 2 values"),
        (Jagged(["f"], [1, 2], [2], torch.ones(1, 2)), LengthMismatch, r"weights .* \(1, 2\)"),
        (Jagged(["f"], [1, 2], [2], torch.tensor([1, 2])), DtypeMismatch, "weights .* int64"),
        (Jagged(["f"], [1, 2], [1, 1], strides=[3]), LengthMismatch, r"2 lengths for 1 features of \[3\]"),
        (Jagged(["f"], [1], [1], inverse=(["g"], torch.tensor([[0]]))), InvalidArgument, r"lack the features \['f'\]"),
        (Jagged(["f"], [1], [1], inverse=(["f"], torch.tensor([[0, 1]]))), InvalidArgument, "bag 1: it has 1 bags"),
        (Jagged(["f"], [1], [1], inverse=(["f"], torch.tensor([[-1]]))), InvalidArgument, "bag -1"),
        (Jagged(["f"], [1], [1], inverse=(["f"], torch.tensor([0]))), LengthMismatch, r"give \[F, B\]"),
        (Jagged(["f"], [1], [1], inverse=(["f"], torch.tensor([[0.0]]))), DtypeMismatch, "float32"),
        ({"f": torch.tensor([1])}, InvalidArgument, "'f' is of type Tensor: give ps.nn.Bags"),
        ([1, 2], InvalidArgument, "type list"),
    ],
)
def test_what_does_not_fit_together_is_refused(jagged: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bags_of(jagged)


def test_weights_of_any_float_type_are_taken() -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        bags = bags_of(Jagged(["f"], [1, 2], [2], torch.tensor([0.5, 2.0], dtype=dtype)))["f"]
        assert bags.weights is not None
        assert bags.weights.dtype == torch.float32
        assert bags.weights.tolist() == [0.5, 2.0]


def test_a_batch_size_per_feature_is_expanded_to_the_samples() -> None:
    inverse = ["g", "f"], torch.tensor([[1, 0, 2], [0, 0, 0]])  # its features in another order
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    bags = bags_of(Jagged(["f", "g"], [10, 11, 20, 21, 22], [2, 1, 0, 2], weights, [1, 3], inverse))
    assert lists(bags["f"]) == [[10, 11], [10, 11], [10, 11]]
    assert lists(bags["g"]) == [[], [20], [21, 22]]
    assert bags["f"].weights.tolist() == [1.0, 2.0] * 3
    assert bags["g"].weights.tolist() == [3.0, 4.0, 5.0]


def collection(client: ps.Client, *features: Feature) -> EmbeddingBagCollection:
    names = dict.fromkeys(feature.table for feature in features)
    tables = [
        ps.TableConfig(name=name, dim=DIM, optimizer=ps.SGD(lr=1.0), initializer=ps.Normal(std=1.0)) for name in names
    ]
    return EmbeddingBagCollection(client, tables, features)


@pytest.fixture
def client() -> Iterator[ps.Client]:
    with ps.connect("inproc:") as connected:
        yield connected


def test_batch_sizes_that_differ_need_to_be_told_apart(client: ps.Client) -> None:
    layer = collection(client, Feature("f", "t"), Feature("g", "t"))
    with pytest.raises(InvalidArgument, match=r"\{'f': 1, 'g': 3\}.*inverse_indices"):
        layer(Jagged(["f", "g"], [1, 2, 3, 4], [1, 1, 1, 1], strides=[1, 3]))


def test_a_feature_that_a_batch_lacks_is_an_error_and_others_are_left_alone(client: ps.Client) -> None:
    layer = collection(client, Feature("f", "t"), Feature("g", "t"))
    with pytest.raises(InvalidArgument, match=r"lacks the features \['g'\].*Bags\.empty\(batch_size\)"):
        layer(Jagged(["f", "x"], [1, 2], [1, 1]))
    with pytest.raises(InvalidArgument, match=r"lacks the features \['g'\]"):
        layer({"f": Bags(torch.tensor([1]), torch.arange(1))})
    out = layer(Jagged(["x", "g", "f"], [9, 1], [1, 0, 1]))  # g has no id in this sample
    assert torch.equal(out[:, 1], torch.zeros(1, DIM))
    torch.testing.assert_close(out[:, 0], client.pull("t", torch.tensor([1])))
    same = layer({"f": Bags(torch.tensor([1]), torch.arange(1)), "g": Bags.empty(1)})
    torch.testing.assert_close(out, same)


@pytest.mark.parametrize("pooled", ["trainer", "shard"])
def test_one_feature_in_two_tables_trains_the_rows_of_each(client: ps.Client, pooled: Any) -> None:
    features = [Feature("other", "wide"), Feature("item", "wide"), Feature("item", "deep"), Feature("item", "wide")]
    layer = collection(client, *[Feature(f.name, f.table, pooled=pooled) for f in features])
    before = {name: client.pull(name, torch.tensor([2, 3, 4])) for name in ("wide", "deep")}
    bags = {
        "other": Bags(torch.tensor([3, 4]), torch.tensor([0, 1])),
        "item": Bags(torch.tensor([2]), torch.tensor([0, 1])),
    }
    out = layer(bags)
    wide, deep = before["wide"], before["deep"]
    torch.testing.assert_close(out[0], torch.stack([wide[1], wide[0], deep[0], wide[0]]))
    zeros = torch.zeros(DIM)
    torch.testing.assert_close(out[1], torch.stack([wide[2], zeros, zeros, zeros]))
    (out * torch.tensor([1.0, 2.0, 4.0, 8.0])[:, None]).sum().backward()
    layer.step()
    after = {name: client.pull(name, torch.tensor([2, 3, 4])) for name in ("wide", "deep")}
    torch.testing.assert_close(wide - after["wide"], torch.tensor([[10.0], [1.0], [1.0]]).expand(3, DIM))
    torch.testing.assert_close(deep - after["deep"], torch.tensor([[4.0], [0.0], [0.0]]).expand(3, DIM))


def test_an_id_of_a_feature_that_is_pooled_twice_counts_once() -> None:
    """In one table, as a sum and as a mean."""
    table = ps.TableConfig(name="t", dim=DIM, importance=ps.Importance(frequency=0, occurrences=1, positives=10))
    features = [Feature("f", "t"), Feature("f", "t", "mean")]
    with ps.connect("inproc:") as twice, ps.connect("inproc:") as once:
        scores = []
        for client, some in ((twice, features), (once, features[:1])):
            layer = EmbeddingBagCollection(client, [table], some)
            layer({"f": Bags(torch.tensor([1, 1, 2]), torch.tensor([0, 2]))}, torch.tensor([1.0, 0.0])).sum().backward()
            layer.step()
            scores.append({int(i): float(s) for ids, _, of in client.export("t") for i, s in zip(ids, of, strict=True)})
    assert scores[0] == scores[1]


def torchrec() -> Any:
    return pytest.importorskip("torchrec", reason="torchrec is not installed")


def jagged_tensors() -> list[Any]:
    kjt = torchrec().KeyedJaggedTensor
    ids, weights = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([1.0, 0.5, 2.0, -1.0, 3.0])
    lengths = torch.tensor([2, 0, 1, 2])
    two = kjt(["f", "g"], ids, lengths=lengths)
    inverse = ["f", "g"], torch.tensor([[0, 0, 0], [2, 0, 1]])
    return [
        two,
        kjt(["f", "g"], ids.int(), lengths=lengths.int()),
        kjt(["f", "g"], ids, offsets=torch.tensor([0, 2, 2, 3, 5])),
        kjt(["g", "f"], ids, lengths=lengths),
        two.permute([1, 0]),
        kjt(["x", "f", "y", "g"], ids, lengths=torch.tensor([1, 0, 1, 0, 0, 1, 2, 0])),
        kjt(["f", "g"], ids[:0], lengths=torch.zeros(4, dtype=torch.int64)),
        kjt(
            ["f", "g"],
            ids[:4],
            lengths=torch.ones(4).long(),
            stride_per_key_per_rank=[[1], [3]],
            inverse_indices=inverse,
        ),
        kjt.from_lengths_sync(["f", "g"], ids, lengths),
        kjt.concat(
            [kjt(["f"], ids[:2], lengths=torch.tensor([2, 0])), kjt(["g"], ids[2:], lengths=torch.tensor([1, 2]))]
        ),
        kjt(["f", "g"], ids, weights, lengths=lengths),
    ]


@pytest.mark.parametrize("number", range(11))
def test_pooled_as_torchrecs_own_collection_does(client: ps.Client, number: int) -> None:
    rec = torchrec()
    jagged = jagged_tensors()[number]
    layer = collection(client, Feature("f", "t"), Feature("g", "u"))
    config = rec.EmbeddingBagConfig
    theirs = rec.EmbeddingBagCollection(
        tables=[
            config(name=table, embedding_dim=DIM, num_embeddings=6, feature_names=[name])
            for name, table in (("f", "t"), ("g", "u"))
        ],
        is_weighted=jagged.weights_or_none() is not None,
    )
    with torch.no_grad():
        for name, bag in theirs.embedding_bags.items():
            bag.weight.copy_(client.pull(name, torch.arange(6)))
    expected = theirs(jagged).values().unflatten(1, (2, DIM))
    found = layer(jagged)
    torch.testing.assert_close(found, expected)
    scale = torch.arange(1.0, 1 + found.numel()).view_as(found)
    for out in (found, expected):
        (out * scale).sum().backward() if len(jagged.values()) else None
    layer.step()
    for name, bag in theirs.embedding_bags.items():
        grad = torch.zeros(6, DIM) if bag.weight.grad is None else bag.weight.grad
        torch.testing.assert_close(client.pull(name, torch.arange(6)), bag.weight - grad)


def test_torchrecs_offsets_that_fall_are_refused() -> None:
    jagged = torchrec().KeyedJaggedTensor(["f"], torch.tensor([1, 2, 3]), offsets=torch.tensor([0, 2, 1, 3]))
    with pytest.raises(InvalidArgument, match="a bag of -1 ids"):
        bags_of(jagged)
