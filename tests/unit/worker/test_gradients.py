"""Backwards and steps: what a collection's rows come to is what torch's own modules and optimizers make of them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.nn import functional

import ps
from ps.nn import Bags, EmbeddingBagCollection, Feature, Threshold
from ps.nn.embedding.row_optimizer import check_no_scaler, known_scalers
from ps.nn.feature import Pooled
from tests.waiting import LIMIT_S

DIM, IDS = 3, 6
NAMES = itertools.count()
FEATURES = (("f", "a", "sum"), ("g", "b", "mean"), ("h", "a", "mean"))
"""Two of them share a table."""
OPTIMIZERS: dict[str, tuple[Any, Callable[..., torch.optim.Optimizer]]] = {
    "sgd": (ps.SGD(lr=0.5), lambda params: torch.optim.SGD(params, lr=0.5)),
    "adagrad": (ps.Adagrad(lr=0.1), lambda params: torch.optim.Adagrad(params, lr=0.1)),
    "adam": (ps.Adam(lr=0.1), lambda params: torch.optim.SparseAdam(params, lr=0.1)),
}


@pytest.fixture(scope="module")
def client() -> Iterator[ps.Client]:
    with ps.connect("inproc:") as connected:
        yield connected


def bags(*lists: Sequence[int]) -> Bags:
    lengths = torch.tensor([len(part) for part in lists], dtype=torch.int64)
    return Bags(
        torch.tensor([i for part in lists for i in part], dtype=torch.int64), torch.cumsum(lengths, 0) - lengths
    )


def one_table(client: ps.Client, value: float = 10.0, **fields: Any) -> tuple[str, EmbeddingBagCollection]:
    """Of one number a row, SGD at rate 1: a row is its first value less its gradients."""
    name = f"t{next(NAMES)}"
    arguments = {key: fields.pop(key) for key in ("sparsify", "mode") if key in fields}
    table = {"dim": 1, "optimizer": ps.SGD(lr=1.0), "initializer": ps.Constant(value=value), **fields}
    layer = EmbeddingBagCollection(client, [ps.TableConfig(name=name, **table)], [Feature("f", name)], **arguments)
    return name, layer


class Pair:
    """The same tables here and in torch, and the forwards of both so far."""

    def __init__(self, client: ps.Client, kind: str, pooled: Pooled, sparsify: Threshold | None) -> None:
        torch.sparse.check_sparse_tensor_invariants.disable()  # torch warns until one says yes or no
        ours, theirs = OPTIMIZERS[kind]
        number = next(NAMES)
        self.names = {table: f"{table}{number}" for table in "ab"}
        configs = [
            ps.TableConfig(name=name, dim=DIM, optimizer=ours, initializer=ps.Normal(std=1.0))
            for name in self.names.values()
        ]
        features = [Feature(name, self.names[table], pooling, pooled) for name, table, pooling in FEATURES]  # type: ignore[arg-type]
        self.client = client
        self.layer = EmbeddingBagCollection(client, configs, features, sparsify=sparsify)
        self.weights = {t: torch.nn.Parameter(client.pull(n, torch.arange(IDS))) for t, n in self.names.items()}
        self.optimizer = theirs(list(self.weights.values()))
        self.forwards: list[tuple[torch.Tensor, list[torch.Tensor]]] = []

    def forward(self, sparse: Any, batch: dict[str, Bags]) -> None:
        """sparse: the batch, or what was prepared of it."""
        theirs = [
            functional.embedding_bag(
                batch[name].ids, self.weights[table], batch[name].offsets, mode=pooling, sparse=True
            )
            for name, table, pooling in FEATURES
        ]
        self.forwards.append((self.layer(sparse), theirs))

    def backward(self, which: int, used: Sequence[int], factor: float) -> None:
        ours, theirs = self.forwards[which % len(self.forwards)]
        wave = factor * torch.arange(1.0, DIM + 1)
        torch.stack([(ours[:, f] * wave).sum() for f in used]).sum().backward(retain_graph=True)
        torch.stack([(theirs[f] * wave).sum() for f in used]).sum().backward(retain_graph=True)

    def zero_grad(self) -> None:
        self.layer.zero_grad()
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.layer.step()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def check(self) -> None:
        for table, name in self.names.items():
            found = self.client.pull(name, torch.arange(IDS))
            torch.testing.assert_close(found, self.weights[table].detach(), rtol=0, atol=1e-5)


LISTS = st.lists(st.lists(st.integers(0, IDS - 1), max_size=3), min_size=2, max_size=2).filter(any)
BATCHES = st.fixed_dictionaries({name: LISTS for name, _, _ in FEATURES})
BACKWARDS = st.tuples(
    st.integers(0, 9), st.lists(st.sampled_from([0, 1, 2]), min_size=1, unique=True), st.sampled_from([1.0, -2.0])
)
OPERATIONS = st.one_of(
    st.tuples(st.just("forward"), BATCHES),
    st.tuples(st.just("forward again"), st.just(None)),
    st.tuples(st.just("backward"), BACKWARDS),
    st.tuples(st.just("backward"), BACKWARDS),
    st.tuples(st.just("zero"), st.just(None)),
    st.tuples(st.just("step"), st.just(None)),
)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("pooled", "sparsify"), [("trainer", None), ("shard", None), ("trainer", Threshold(0.0))])
@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(first=BATCHES, operations=st.lists(OPERATIONS, max_size=14))
def test_any_order_of_forwards_backwards_and_steps_is_torchs(
    client: ps.Client, kind: str, pooled: Pooled, sparsify: Threshold | None, first: Any, operations: Any
) -> None:
    pair = Pair(client, kind, pooled, sparsify)
    batch = {name: bags(*lists) for name, lists in first.items()}
    prepared = pair.layer.prepare(batch)
    pair.forward(prepared, batch)
    for what, given_ in [*operations, ("step", None)]:
        if what == "forward":
            of = {name: bags(*lists) for name, lists in given_.items()}
            pair.forward(of, of)
        elif what == "forward again":
            pair.forward(prepared, batch)
        elif what == "backward":
            pair.backward(*given_)
        elif what == "zero":
            pair.zero_grad()
        else:
            pair.step()
            pair.check()


@pytest.mark.parametrize("sparsify", [None, Threshold(0.0)])
@pytest.mark.parametrize(
    ("factors", "want"), [((1.0, 1.0), 8.0), ((1.0, 3.0), 6.0), ((1.0, -1.0), 10.0)], ids=["equal", "two", "none"]
)
def test_two_backwards_of_one_forward_are_added(
    client: ps.Client, factors: Sequence[float], want: float, sparsify: Threshold | None
) -> None:
    name, layer = one_table(client, sparsify=sparsify)
    out = layer({"f": bags([7])})
    for factor in factors:
        (factor * out).sum().backward(retain_graph=True)
    layer.step()
    assert client.pull(name, [7]).item() == want
    layer.step()
    assert client.pull(name, [7]).item() == want, "a step takes what waits"


def test_micro_batches_are_one_push_of_their_sum(client: ps.Client) -> None:
    """Adagrad tells two pushes from one of the sum: 0.829 from 0.900."""
    name, layer = one_table(client, 1.0, optimizer=ps.Adagrad(lr=0.1))
    for ids in ([7], [7, 8]):
        layer({"f": bags(ids)}).sum().backward()
    assert client.size(name) == 0, "nothing is sent before the step"
    layer.step()
    assert client.pull(name, [7, 8]).ravel().tolist() == pytest.approx([0.9, 0.9], abs=1e-6)
    assert client.stats()["shards"][0]["tables"][name]["pushes"] == 1


def test_a_batch_alone_in_its_step_goes_by_its_handle_and_others_by_ids(client: ps.Client) -> None:
    _, layer = one_table(client)

    def pushed_ids() -> int:
        return client.stats()["client"]["sent_by_kind"].get("Push", {}).get("ids", 0)

    ids, before = bags(range(500)), pushed_ids()
    for _ in range(3):
        prepared = layer.prepare({"f": ids})
        out = layer(prepared)
        for _ in range(2):
            out.sum().backward(retain_graph=True)
        layer.step()
    assert pushed_ids() == before
    layer(prepared).sum().backward()  # its step was pushed
    layer.step()
    assert pushed_ids() > before + 4000


def test_what_is_counted_of_several_batches_is_their_sum(client: ps.Client) -> None:
    """Each use of a batch counts once, however many backwards it has, and only features that a loss uses."""
    importance = ps.Importance(frequency=0, occurrences=1, positives=100)
    number = next(NAMES)
    table = ps.TableConfig(name=f"t{number}", dim=1, importance=importance)
    layer = EmbeddingBagCollection(client, [table], [Feature("f", table.name), Feature("g", table.name)])
    first = layer({"f": bags([1, 1], [2]), "g": bags([3], [9])}, torch.tensor([1.0, 0.0]))
    second = layer({"f": bags([1], [4]), "g": bags([2], [2])}, torch.tensor([0.0, 1.0]))
    for _ in range(2):
        first[:, 0].sum().backward(retain_graph=True)  # without feature g
    second.sum().backward()
    layer.step()
    scores = {int(i): float(s) for ids, _, found in client.export(table.name) for i, s in zip(ids, found, strict=True)}
    assert scores == {1: 203.0, 2: 103.0 + 0, 4: 101.0}


def test_staleness_is_that_of_the_oldest_rows(client: ps.Client) -> None:
    with ps.connect("inproc:") as alone:
        _, layer = one_table(alone)
        layer({"f": bags([1])}).sum().backward()
        layer.step()
        old = layer({"f": bags([1])})
        layer({"f": bags([2])}).sum().backward()
        layer.step()
        (old + layer({"f": bags([3])})).sum().backward()
        layer.step()
        assert alone.stats()["shards"][0]["staleness"]["most"] == 1


@pytest.mark.parametrize("kind", ["ftrl", "adam"])
def test_a_table_that_the_loss_does_not_use_is_left_alone(client: ps.Client, kind: str) -> None:
    optimizer = {"ftrl": ps.FTRL(), "adam": ps.Adam(lr=0.1)}[kind]
    number = next(NAMES)
    tables = [
        ps.TableConfig(name=f"{t}{number}", dim=1, optimizer=optimizer, initializer=ps.Constant(value=1.0))
        for t in "ab"
    ]
    layer = EmbeddingBagCollection(client, tables)
    batch = {table.name: bags([7]) for table in tables}
    layer(batch).sum().backward()
    layer.step()
    before = client.pull(tables[1].name, [7]).item()
    for _ in range(3):
        layer(batch)[:, 0].sum().backward()
        layer.step()
    assert client.pull(tables[1].name, [7]).item() == before
    assert client.stats()["shards"][0]["tables"][tables[1].name]["pushes"] == 1


def test_a_batch_without_ids_has_a_backward(client: ps.Client) -> None:
    _, layer = one_table(client)
    out = layer({"f": bags([], [])})
    out.sum().backward()
    layer.step()
    assert out.tolist() == [[[0.0]], [[0.0]]]


# what is dropped, frozen, forgotten


def by_layer(model: torch.nn.Module, layer: EmbeddingBagCollection) -> None:
    layer.zero_grad()


def by_model(model: torch.nn.Module, layer: EmbeddingBagCollection) -> None:
    model.zero_grad()


def by_row_optimizer(model: torch.nn.Module, layer: EmbeddingBagCollection) -> None:
    layer.optimizer.zero_grad()


def by_an_optimizer_of_all(model: torch.nn.Module, layer: EmbeddingBagCollection) -> None:
    torch.optim.SGD(model.parameters(), lr=1.0).zero_grad()


@pytest.mark.parametrize("zero_grad", [by_layer, by_model, by_row_optimizer, by_an_optimizer_of_all])
def test_zero_grad_drops_what_waits(
    client: ps.Client, zero_grad: Callable[[torch.nn.Module, EmbeddingBagCollection], None]
) -> None:
    name, layer = one_table(client)
    model = torch.nn.Sequential(layer, torch.nn.Linear(1, 1))
    layer({"f": bags([7])}).sum().backward()
    zero_grad(model, layer)
    (3 * layer({"f": bags([7])})).sum().backward()
    layer.step()
    assert client.pull(name, [7]).item() == 7.0
    (layer({"f": bags([7])}) + 2 * layer({"f": bags([7])})).sum().backward()  # none drops the other's
    layer.step()
    assert client.pull(name, [7]).item() == 4.0


def test_a_zero_grad_before_the_step_is_not_passed_over_in_silence(
    client: ps.Client, caplog: pytest.LogCaptureFixture
) -> None:
    _, layer = one_table(client)
    layer({"f": bags([7])}).sum().backward()
    torch.optim.SGD(torch.nn.Sequential(layer).parameters(), lr=1.0).zero_grad()
    layer.step()
    assert "the gradients of 1 backward have not been pushed" in caplog.text


def test_what_is_dropped_is_counted_with_the_backward_that_is_pushed(client: ps.Client) -> None:
    _, layer = one_table(client)
    out = layer({"f": bags([7, 7, 8])}).sum()
    counts = []
    for drop in (True, False, False):
        out.backward(retain_graph=True)
        if drop:
            layer.zero_grad()
        else:
            (part,) = layer._waiting.take()[0].values()
            counts.append(part.counts_U.tolist())
    assert counts == [[2, 1], [0, 0]], "once, and with what goes to the shards"


def test_gradients_without_a_step_are_told(client: ps.Client, caplog: pytest.LogCaptureFixture) -> None:
    _, layer = one_table(client)
    for _ in range(2):
        layer({"f": bags([7])}).sum().backward()
    with pytest.raises(ps.InvalidArgument, match=r"2 backwards have not been pushed by a step\(\): call step\(\)"):
        layer.finish()
    del layer
    assert "2 backwards have not been pushed by a step(): they are lost" in caplog.text


def test_what_waits_is_bounded(client: ps.Client) -> None:
    _, layer = one_table(client)
    layer._waiting._max_bytes = 400
    for start in range(0, 202, 101):
        if start:
            with pytest.raises(
                ps.ResourceExhausted, match=r"1 backward, 404 bytes, wait .* call the collection's step"
            ):
                layer({"f": bags(range(start, start + 101))}).sum().backward()
        else:
            layer({"f": bags(range(101))}).sum().backward()
    layer.step()


def test_a_frozen_collection_learns_nothing(client: ps.Client) -> None:
    name, layer = one_table(client)
    model = torch.nn.Sequential(layer, torch.nn.Linear(1, 1))
    layer({"f": bags([7])}).sum().backward()
    layer.step()
    for freeze in (model, layer):
        freeze.requires_grad_(False)
        out = layer({"f": bags([7])})
        assert not out.requires_grad
        freeze.requires_grad_(True)
    layer.requires_grad_(False)
    torch.nn.functional.linear(layer({"f": bags([7])}), torch.ones(1, 1, requires_grad=True)).sum().backward()
    layer.step()
    assert client.pull(name, [7]).item() == 9.0
    layer.requires_grad_(True)
    layer({"f": bags([7])}).sum().backward()
    layer.step()
    assert client.pull(name, [7]).item() == 8.0


# scalers and clipping


@pytest.mark.parametrize("unscale", [False, True])
def test_a_grad_scaler_unscales_the_rows_too(client: ps.Client, unscale: bool) -> None:
    name, layer = one_table(client, 0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    for _ in range(2):
        for _ in range(2):  # two micro-batches
            scaler.scale(layer({"f": bags([7])}).sum()).backward()
        if unscale:
            scaler.unscale_(layer.optimizer)
            assert layer.row_parameters()[0].grad.tolist() == [[2.0]]  # type: ignore[union-attr]
        scaler.step(layer.optimizer)
        scaler.update()
    assert client.pull(name, [7]).item() == -4.0


def test_a_step_that_does_not_know_of_a_scaler_is_refused(client: ps.Client) -> None:
    name, layer = one_table(client, 0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(layer({"f": bags([7])}).sum()).backward()
    for step in (layer.step, layer.send):
        with pytest.raises(ps.InvalidArgument, match=r"GradScaler is in use.*scaler\.step\(collection\.optimizer\)"):
            step()
    assert not client.size(name)
    scaler.step(layer.optimizer)
    assert client.pull(name, [7]).item() == -1.0
    layer({"f": bags([7])}).sum().backward()
    layer.step()  # whoever has used the optimizer knows of it
    assert client.pull(name, [7]).item() == -2.0


def test_to_look_for_scalers_disturbs_no_other_thread() -> None:
    """CPython resizes the tuple that it makes of a generator when this ends, and fails if anybody else refers to it."""
    begun, looking = threading.Event(), threading.Event()

    class Scaler(torch.amp.GradScaler):
        def is_enabled(self) -> bool:
            looking.set()
            made.exception(LIMIT_S)
            return False

    def parts() -> Iterator[int]:
        yield 1
        begun.set()
        assert looking.wait(LIMIT_S)

    def make() -> tuple[int, ...]:
        return tuple(part for part in parts())

    scaler = Scaler("cpu", enabled=False)
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(make)
        assert begun.wait(LIMIT_S)
        check_no_scaler()
    assert made.result() == (1,)
    assert scaler in known_scalers()


def test_a_step_that_overflows_is_left_out_and_the_next_is_not_spoiled(client: ps.Client) -> None:
    name, layer = one_table(client, 0.0)
    dense = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD([*dense.parameters(), layer.anchor], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(
            (dense(layer({"f": bags([7])})[:, 0]) * 0 + layer({"f": bags([7])})[:, 0] * factor).sum()
        ).backward()
        scaler.step(optimizer)
        scaler.step(layer.optimizer)
        scaler.update()
    assert scaler.get_scale() == 512.0
    assert client.pull(name, [7]).item() == -1.0


@pytest.mark.parametrize("pooled", ["trainer", "shard"])
def test_clipping_sees_the_gradients_of_rows(client: ps.Client, pooled: Pooled) -> None:
    pair = Pair(client, "sgd", pooled, None)
    batch = {"f": bags([1, 2, 2], [3]), "g": bags([0], [0, 1]), "h": bags([2], [])}
    pair.forward(batch, batch)
    pair.backward(0, [0, 1, 2], 3.0)
    norms = [
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        for parameters in (pair.layer.row_parameters(), [_dense(weight) for weight in pair.weights.values()])
    ]
    torch.testing.assert_close(*norms)
    for weight in pair.weights.values():
        weight.grad = weight.grad.coalesce() * (0.5 / norms[1])  # type: ignore[union-attr]
    pair.step()
    pair.check()


def _dense(weight: torch.nn.Parameter) -> torch.nn.Parameter:
    copy = torch.nn.Parameter(weight.detach().clone())
    copy.grad = weight.grad.to_dense()  # type: ignore[union-attr]
    return copy
