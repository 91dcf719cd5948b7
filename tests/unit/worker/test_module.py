"""The collection as a torch module: compiled, copied, averaged, saved; in evaluation; where pushes fail."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch

import ps
from ps.client.connection.transport import Begun, Transport, open_transport
from ps.cluster import inprocess
from ps.nn import Bags, EmbeddingBagCollection, Group, Prefetcher, Synchronous, Threshold, TopK
from ps.nn.batch import Batch
from ps.wire import methods
from tests.waiting import until

TABLE = ps.TableConfig(name="t", dim=1, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant(value=10.0))


@pytest.fixture
def connect() -> Iterator[Callable[..., ps.Client]]:
    """Clients of one service."""
    address = inprocess.start()
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(ps.connect(address, **options))


def batch(*ids: int, table: str = "t") -> dict[str, Bags]:
    """A bag for each id."""
    return {table: Bags(torch.tensor(ids, dtype=torch.int64), torch.arange(len(ids)))}


def empty(table: str = "t") -> dict[str, Bags]:
    """A sample without ids."""
    return {table: Bags(torch.empty(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))}


class Model(torch.nn.Module):
    """With a dense layer of ones."""

    def __init__(self, client: ps.Client) -> None:
        super().__init__()
        self.embeddings = EmbeddingBagCollection(client, [TABLE])
        self.linear = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.linear.weight)

    def forward(self, sparse: Any) -> torch.Tensor:
        found: torch.Tensor = self.linear(self.embeddings(sparse)[:, 0])
        return found


def value(client: ps.Client, id_: int = 7, table: str = "t") -> float:
    return float(client.pull(table, [id_]).item())


@pytest.mark.slow  # it loads the compiler
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, of the compiler's
@pytest.mark.parametrize("prepared", [False, True])
def test_a_compiled_model_trains_as_the_same_one_eager(connect: Callable[..., ps.Client], prepared: bool) -> None:
    client = connect()
    model = Model(client)
    compiled = torch.compile(model, backend="eager")
    for step in range(2):
        sparse: Any = batch(7, 7, 8)
        if prepared:
            sparse = model.embeddings.prepare(sparse)
        compiled(sparse).sum().backward()
        model.embeddings.step()
        assert [value(client, 7), value(client, 8)] == [8.0 - 2 * step, 9.0 - step]


def test_a_copy_reads_and_trains_the_same_rows_and_has_nothing_that_waits(connect: Callable[..., ps.Client]) -> None:
    client = connect()
    model = Model(client)
    model(batch(7)).sum().backward()
    twin = copy.deepcopy(model)
    twin.embeddings.step()
    assert value(client) == 10.0
    model.embeddings.step()
    (2 * twin(batch(7))).sum().backward()
    twin.embeddings.step()
    assert value(client) == 7.0
    assert twin.embeddings.client is client


def test_what_is_held_back_stays_with_the_original(connect: Callable[..., ps.Client]) -> None:
    client = connect()
    layer = EmbeddingBagCollection(client, [TABLE], sparsify=Threshold(100.0))
    client.upsert("t", [7], np.full((1, 1), 10.0, np.float32))
    layer(batch(7)).sum().backward()
    layer.step()
    twin = copy.deepcopy(layer)
    twin.flush()
    assert value(client) == 10.0
    layer.flush()
    assert value(client) == 9.0


def test_averaged_models_share_the_rows_and_average_the_rest(connect: Callable[..., ps.Client]) -> None:
    client = connect()
    model = Model(client)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for _ in range(2):
        averaged.update_parameters(model)
        with torch.no_grad():
            model.linear.weight += 2
    assert averaged.module.linear.weight.item() == 2.0
    assert averaged(batch(7)).item() == 20.0


def test_a_pickle_is_refused_and_a_state_dict_is_not(connect: Callable[..., ps.Client]) -> None:
    model = Model(connect())
    for save in (lambda: torch.save(model, io.BytesIO()), lambda: copy.copy(model.embeddings)):
        with pytest.raises(ps.InvalidArgument, match=r"save its state_dict\(\)"):
            save()
    Model(connect()).load_state_dict(model.state_dict())


# steps that no push follows


def held(client: ps.Client) -> int:
    return sum(shard["steps_held"] for shard in client.stats()["shards"])


def in_eval_mode(layer: EmbeddingBagCollection) -> None:
    layer.eval()
    layer(batch(7))


def without_grad(layer: EmbeddingBagCollection) -> None:
    with torch.no_grad():
        layer(layer.prepare(batch(7)))


def frozen(layer: EmbeddingBagCollection) -> None:
    layer.requires_grad_(False)
    layer(batch(7))


def prefetched_and_left(layer: EmbeddingBagCollection) -> None:
    batches = [Batch(torch.zeros(1, 1), batch(7), torch.zeros(1)) for _ in range(9)]
    layer.eval()
    for one in Prefetcher(batches, layer, depth=5):
        layer(one.sparse)
        break


def never_backwarded(layer: EmbeddingBagCollection) -> None:
    layer(batch(7))
    layer.eval()
    layer(batch(7))  # says it


def merged(layer: EmbeddingBagCollection) -> None:
    (layer(batch(7)) + layer(batch(8))).sum().backward()
    layer.step()


def of_an_unused_table(layer: EmbeddingBagCollection) -> None:
    layer.client.create_table(TABLE.model_copy(update={"name": "u"}), exist_ok=True)
    both = EmbeddingBagCollection(layer.client, [TABLE, TABLE.model_copy(update={"name": "u"})])
    both({**batch(7), **batch(7, table="u")})[:, 0].sum().backward()
    both.step()


def refused(layer: EmbeddingBagCollection) -> None:
    (layer(batch(7)) * float("nan")).sum().backward()
    with pytest.raises(ps.NonFiniteGradient):
        layer.step()


def of_a_client(layer: EmbeddingBagCollection) -> None:
    layer.client.prepare({"t": [1]}).pull()
    layer.client.prepare({"t": [1]}).forget()


USES = [
    *(in_eval_mode, without_grad, frozen, prefetched_and_left, never_backwarded),
    *(merged, of_an_unused_table, refused, of_a_client),
]


@pytest.mark.parametrize("use", USES)
def test_no_step_is_held_that_nobody_will_push(
    connect: Callable[..., ps.Client], use: Callable[[EmbeddingBagCollection], None]
) -> None:
    client = connect()
    use(EmbeddingBagCollection(client, [TABLE]))
    until(lambda: held(client) == 0)
    assert client.stats()["shards"][0]["steps_prepared"] > 0


def test_a_prepare_that_comes_after_the_push_is_forgotten(connect: Callable[..., ps.Client]) -> None:
    client = connect()
    EmbeddingBagCollection(client, [TABLE])
    step = client.prepare({"t": [7]})
    step.pull()
    lease = step._lease
    step.push({"t": np.ones((1, 1), np.float32)})
    assert not step.held
    client.prepare({"t": [7]})  # is abandoned
    lease.forget()
    client.prepare({"t": [7]}).forget()
    until(lambda: held(client) == 0)


def test_an_end_does_not_wait_for_a_step_to_be_forgotten(
    connect: Callable[..., ps.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No write is lost with it."""
    client = connect()
    client.create_table(TABLE)
    reached, go = Event(), Event()

    def forget(*_: object) -> None:
        reached.set()
        assert go.wait(20)

    monkeypatch.setattr(client._session.exchange, "forget", forget)
    step = client.prepare({"t": [7]})
    step.pull()  # by its handle: the shard holds it
    step.forget()
    assert reached.wait(20)
    left = client._session.connection.tasks.unfinished()
    go.set()
    assert left == []


# rounds


ADAGRAD = {"optimizer": ps.Adagrad(lr=1.0), "initializer": ps.Constant(value=0.0)}
TABLES = [ps.TableConfig(name=name, dim=1, **ADAGRAD) for name in "tu"]
Step = tuple[dict[str, Bags], tuple[int, ...]]
"""A rank's batch, and the features that its loss uses."""
OF_RANKS: list[list[Step]] = [
    [
        ({**batch(7), **batch(1, table="u")}, (0, 1)),
        ({**empty(), **empty("u")}, (0, 1)),
        ({**batch(8), **empty("u")}, (0,)),
    ],
    [
        ({**empty(), **batch(1, table="u")}, (0, 1)),
        ({**batch(7), **batch(2, table="u")}, (0,)),
        ({**batch(7), **batch(1, table="u")}, ()),
    ],
]


def train(embeddings: EmbeddingBagCollection, steps: list[list[Step]]) -> None:
    """Each step's loss weighs it by its number, so that a step that joins another's shows."""
    for number, of_ranks in enumerate(zip(*steps, strict=True), 1):
        for sparse, used in of_ranks:
            out, bias = embeddings(sparse), torch.zeros((), requires_grad=True)
            (bias + sum(number * out[:, feature].sum() for feature in used)).backward()
        embeddings.step()


def test_ranks_without_ids_or_gradients_have_their_part_of_each_round(connect: Callable[..., ps.Client]) -> None:
    clients = [connect(), connect()]

    def run(rank: int) -> None:
        mode = Synchronous(Group("run", rank, 2, patience_s=20))
        embeddings = EmbeddingBagCollection(clients[rank], TABLES, mode=mode)
        train(embeddings, [OF_RANKS[rank]])
        embeddings.finish()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))
    with ps.connect("inproc:") as alone:
        train(EmbeddingBagCollection(alone, TABLES), OF_RANKS)
        for name in "tu":
            assert clients[0].pull(name, range(9)).tolist() == alone.pull(name, range(9)).tolist()
    assert clients[0].stats()["shards"][0]["pushes"] == 3


def test_a_rank_whose_gradients_are_refused_is_in_the_round_without_them(connect: Callable[..., ps.Client]) -> None:
    clients = [connect(), connect()]

    def run(rank: int) -> None:
        embeddings = EmbeddingBagCollection(
            clients[rank], [TABLE], mode=Synchronous(Group("run", rank, 2, patience_s=20))
        )
        for step in range(2):
            bad = rank == 1 and step == 0
            (embeddings(batch(7)) * (float("nan") if bad else 1.0)).sum().backward()
            if bad:
                with pytest.raises(ps.NonFiniteGradient):
                    embeddings.step()
            else:
                embeddings.step()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))
    assert value(clients[0]) == 7.0


def test_a_refused_step_does_not_stand_for_the_next_one(connect: Callable[..., ps.Client]) -> None:
    layer = EmbeddingBagCollection(connect(), [TABLE], mode=Synchronous(Group("run", 0, 1)))
    (layer(batch(7)) * torch.nan).sum().backward()
    with pytest.raises(ps.NonFiniteGradient):
        layer.step()
    layer.step()  # without a forward, and a round all the same: the other ranks wait for it
    assert layer._sender.sent == 2


def test_a_wait_that_is_interrupted_leaves_the_push_to_the_next(
    connect: Callable[..., ps.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = EmbeddingBagCollection(connect(), [TABLE])
    layer(batch(7)).sum().backward()
    layer.send()
    (push,) = layer._sender.on_their_way

    def interrupted(timeout: float | None = None) -> BaseException | None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(push, "exception", interrupted)
        with pytest.raises(KeyboardInterrupt):
            layer.step()
    assert layer._sender.on_their_way == [push]
    layer.finish()
    assert layer._sender.on_their_way == []


@pytest.mark.parametrize("quiet", [EmbeddingBagCollection.eval, lambda layer: layer.requires_grad_(False)])
def test_weights_of_samples_learn_where_the_rows_do_not(
    connect: Callable[..., ps.Client], quiet: Callable[[EmbeddingBagCollection], object]
) -> None:
    layer = EmbeddingBagCollection(connect(), [TABLE])
    quiet(layer)
    weights = torch.ones(2, requires_grad=True)
    layer({"t": Bags(torch.tensor([7, 8]), torch.tensor([0]), weights)}).sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [10.0, 10.0]


def test_sending_first_is_the_same_step(connect: Callable[..., ps.Client]) -> None:
    client = connect()
    embeddings = EmbeddingBagCollection(client, [TABLE], mode=Synchronous(Group("run", 0, 1)))
    for _ in range(2):
        embeddings(batch(7)).sum().backward()
        embeddings.send()
        embeddings.step()
    embeddings.step()  # one without gradients
    assert value(client) == 8.0
    assert client.stats()["shards"][0]["pushes"] == 3


# pushes that fail


@pytest.mark.parametrize("sparsify", [None, TopK(density=1.0), Threshold(0.0, by="elements")])
def test_a_gradient_that_cannot_be_sent_changes_nothing(connect: Callable[..., ps.Client], sparsify: Any) -> None:
    """And the next does: also beside a table whose gradients are well."""
    client = connect(wire_dtype="fp16")
    tables = [TABLE, TABLE.model_copy(update={"name": "u"})]
    layer = EmbeddingBagCollection(client, tables, sparsify=sparsify)
    for scale in (1.0, 1e6, 1.0):
        out = layer({**batch(7), **batch(7, table="u")})
        (out[:, 0] + scale * out[:, 1]).sum().backward()
        if scale > 1:
            with pytest.raises(ps.NonFiniteGradient, match="fp16 cannot hold it"):
                layer.step()
            layer.step()  # it is said once
        else:
            layer.step()
    assert (value(client), value(client, table="u")) == (8.0, 8.0)
    layer.state_dict()
    layer.finish()
    assert (value(client), value(client, table="u")) == (8.0, 8.0)


class Broken:
    """A network that refuses pushes while it is `broken`."""

    def __init__(self) -> None:
        self.broken = False

    def open(self, address: str) -> Transport:
        inner = open_transport(address)
        passed = inner.stream_in

        def stream_in(method: methods.Method, chunks: Any, timeout_s: float, begun: Begun | None = None) -> bytes:
            if self.broken and method is methods.PUSH:
                raise ps.InternalError("broken")
            return passed(method, chunks, timeout_s, begun)

        inner.stream_in = stream_in  # type: ignore[method-assign]
        return inner


def test_of_a_push_that_fails_what_was_selected_is_dropped_and_nothing_else() -> None:
    """Applied, held and dropped are the sum of all gradients: integers, so to the bit."""
    network = Broken()
    with ps.Client(ps.client.connection.connection.Connection(inprocess.start(), network.open)) as client:
        layer = EmbeddingBagCollection(client, [TABLE], sparsify=Threshold(5.0))
        client.upsert("t", range(4), np.zeros((4, 1), np.float32))
        rng, total, dropped = np.random.default_rng(0), np.zeros(4), np.zeros(4)
        for step in range(30):
            weights, store = rng.integers(-3, 4, 4), layer._pushes.sparsifiers["t"]._store
            held_before = np.zeros(4)
            held_before[store.all().ids_R] = store.all().grads_RD[:, 0]
            (layer(batch(0, 1, 2, 3))[:, 0, 0] * torch.from_numpy(weights)).sum().backward()
            total += weights
            network.broken = step % 3 == 1
            try:
                layer.step()
            except ps.InternalError as error:
                sum_ = held_before + weights
                lost = np.abs(sum_) >= 5
                dropped += np.where(lost, sum_, 0)
                notes = getattr(error, "__notes__", [])
                assert bool(notes) == bool(lost.any())
                if notes:
                    assert f"gradients of {lost.sum()} rows of table 't'" in notes[0]
            network.broken = False
            layer.state_dict()
        layer.flush()
        assert dropped.any()
        np.testing.assert_array_equal(client.pull("t", range(4))[:, 0], dropped - total)
