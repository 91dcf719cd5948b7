"""Pulls ahead and their staleness; collections of several trainers, in step or bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack

import pytest
import torch

import ps
from ps.cluster import inprocess
from ps.nn import Asynchronous, Bags, Bounded, EmbeddingBagCollection, Feature, Group, Prefetcher, Synchronous, TopK
from ps.nn.batch import Batch
from ps.nn.embedding.prepared import PreparedBags

DIM = 2
USERS = ps.TableConfig(name="users", dim=DIM, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant())
SHORT_S = 0.3


@pytest.fixture
def connect() -> Iterator[Callable[[], ps.Client]]:
    """Clients of one service."""
    address = inprocess.start()
    with ExitStack() as stack:
        yield lambda: stack.enter_context(ps.connect(address))


class Prompt(EmbeddingBagCollection):
    """Rows pulled ahead are there before the next batch trains; otherwise they may be fresher than is counted."""

    def pull_ahead(self, prepared: PreparedBags, batches: int) -> None:
        super().pull_ahead(prepared, batches)
        assert prepared.ahead is not None
        wait([prepared.ahead.pulled])


def batch(*ids: int) -> Batch:
    """A bag for each id."""
    bags = Bags(torch.tensor(ids, dtype=torch.int64), torch.arange(len(ids)))
    return Batch(torch.zeros(len(ids), 1), {"users": bags}, torch.zeros(len(ids)))


def train(embeddings: EmbeddingBagCollection, loader: Prefetcher) -> list[float]:
    """Every row used loses 1 in each step; the first element of the first row of each batch, as it was used."""
    seen = []
    for one in loader:
        out = embeddings(one.sparse)
        seen.append(float(out[0, 0, 0].detach()))
        out.sum().backward()
        embeddings.step()
    return seen


# pulls ahead


@pytest.mark.parametrize("pull_ahead", [0, 1, 3])
@pytest.mark.parametrize("depth", [0, 2])
def test_rows_pulled_ahead_lack_just_the_pushes_since(
    connect: Callable[[], ps.Client], pull_ahead: int, depth: int
) -> None:
    embeddings = Prompt(connect(), [USERS])
    seen = train(embeddings, Prefetcher([batch(1)] * 8, embeddings, depth, pull_ahead=pull_ahead))
    lacks = [min(step, pull_ahead) for step in range(8)]
    assert seen == [-float(step - lack) for step, lack in enumerate(lacks)]
    assert embeddings.staleness.by_pushes == {lack: lacks.count(lack) for lack in set(lacks)}
    assert embeddings.staleness.renewed == 0


def test_the_shards_count_that_staleness_too(connect: Callable[[], ps.Client]) -> None:
    client = connect()
    embeddings = Prompt(client, [USERS])
    train(embeddings, Prefetcher([batch(1)] * 8, embeddings, 1, pull_ahead=2))
    (shard,) = client.stats()["shards"]
    assert shard["staleness"] == {"pushes": 8, "total": 0 + 1 + 6 * 2, "most": 2}


def test_a_pull_ahead_waits_for_the_pushes_sent_before_it(connect: Callable[[], ps.Client]) -> None:
    """After `send` pushes are on their way when the next batch is asked for."""
    embeddings = Prompt(connect(), [USERS])
    seen = []
    for one in Prefetcher([batch(1)] * 10, embeddings, 0, pull_ahead=1):
        out = embeddings(one.sparse)
        seen.append(float(out[0, 0, 0].detach()))
        out.sum().backward()
        embeddings.send()
    assert seen == [0.0, 0.0, *(-float(step) for step in range(1, 9))]


def test_rows_that_would_be_too_stale_are_pulled_again(connect: Callable[[], ps.Client]) -> None:
    embeddings = Prompt(connect(), [USERS])
    batches = list(Prefetcher([batch(1)] * 5, embeddings, 0, pull_ahead=1))
    seen = train(embeddings, batches)  # type: ignore[arg-type]  # all of them were pulled at once
    assert seen == [0.0, 0.0, -2.0, -3.0, -4.0]
    assert embeddings.staleness.renewed == 3


def test_what_goes_wrong_in_the_background_is_raised_at_the_use(connect: Callable[[], ps.Client]) -> None:
    client, other = connect(), connect()
    embeddings = EmbeddingBagCollection(client, [USERS])
    batches = iter(Prefetcher([batch(1)] * 3, embeddings, 0, pull_ahead=1))
    embeddings(next(batches).sparse)
    other.drop_table("users")
    second = next(batches)
    third = next(batches)  # its pull begins now
    for broken in (second, third):
        try:
            embeddings(broken.sparse)
        except ps.TableNotFound:
            continue
        assert broken is second, "that one may have been pulled in time"
    other.create_table(USERS)
    assert embeddings(third.sparse).shape == (1, 1, DIM), "it is pulled again when it is used again"


def test_rows_pulled_in_training_are_used_in_evaluation(connect: Callable[[], ps.Client]) -> None:
    """And the other way round, where gradients are sparsified: which ids are new is known in both."""
    client = connect()
    embeddings = EmbeddingBagCollection(client, [USERS], sparsify=TopK(density=1.0))
    batches = iter(Prefetcher([batch(1)] * 4, embeddings, 0, pull_ahead=1))
    embeddings(next(batches).sparse).sum().backward()
    embeddings.send()
    embeddings.eval()
    embeddings(next(batches).sparse)
    following = next(batches)
    embeddings.train()
    embeddings(following.sparse).sum().backward()
    embeddings.step()
    assert client.pull("users", [1]).tolist() == [[-2.0] * DIM]


@pytest.mark.parametrize("pull_ahead", [-1, 1.5])
def test_how_far_ahead_is_a_number(connect: Callable[[], ps.Client], pull_ahead: object) -> None:
    with pytest.raises(ps.InvalidArgument, match="how many batches to pull ahead"):
        Prefetcher([], EmbeddingBagCollection(connect(), [USERS]), pull_ahead=pull_ahead)  # type: ignore[arg-type]


# in step


ADAGRAD = USERS.model_copy(update={"optimizer": ps.RowwiseAdagrad(lr=1.0)})
OF_RANKS = [[batch(1, 2, 2), batch(2, 3), batch(1), batch(4)], [batch(2), batch(1), batch(1, 5), batch(6)]]


def test_two_trainers_in_step_are_one_with_both_batches(connect: Callable[[], ps.Client]) -> None:
    """Adagrad would tell two pushes from one of the sum."""

    def run(rank: int) -> None:
        mode = Synchronous(Group("run", rank, 2))
        embeddings = EmbeddingBagCollection(clients[rank], [ADAGRAD], mode=mode)
        train(embeddings, Prefetcher(OF_RANKS[rank], embeddings, 1))
        embeddings.finish()

    clients = [connect(), connect()]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))
    with ps.connect("inproc:") as alone:
        embeddings = EmbeddingBagCollection(alone, [ADAGRAD])
        both = [
            batch(*one.sparse["users"].ids.tolist(), *two.sparse["users"].ids.tolist())
            for one, two in zip(*OF_RANKS, strict=True)
        ]
        train(embeddings, Prefetcher(both, embeddings, 1))
        ids = list(range(8))
        assert clients[0].pull("users", ids).tolist() == alone.pull("users", ids).tolist()
    (shard,) = clients[0].stats()["shards"]
    assert shard["pushes"] == 4
    assert shard["staleness"]["total"] == 0


def test_in_step_a_batch_begins_when_the_push_before_is_applied(connect: Callable[[], ps.Client]) -> None:
    """And two pushes without a `forward` between them go one after the other."""
    embeddings = EmbeddingBagCollection(connect(), [USERS], mode=Synchronous(Group("run", 0, 1)))
    for step in range(5):
        out = embeddings(batch(1).sparse)
        assert float(out[0, 0, 0].detach()) == -2.0 * step
        again = embeddings(batch(1).sparse)
        for used in (out, again):
            used.sum().backward()
            embeddings.send()
    embeddings.step()


def test_a_trainer_whose_partner_does_not_come_is_told_who(connect: Callable[[], ps.Client]) -> None:
    client = connect()
    embeddings = EmbeddingBagCollection(client, [USERS], mode=Synchronous(Group("run", 1, 2, patience_s=SHORT_S)))
    embeddings(batch(1).sparse).sum().backward()
    with pytest.raises(ps.DeadlineExceeded, match=r"round 1 of group 'run': ranks \[0\] of 2"):
        embeddings.step()
    assert client.size("users") == 0


def test_a_trainer_that_is_started_again_goes_on_where_the_other_waits(connect: Callable[[], ps.Client]) -> None:
    clients = [connect(), connect(), connect()]
    collections = [
        EmbeddingBagCollection(client, [USERS], mode=Synchronous(Group("run", rank, 2), steps=steps))
        for client, rank, steps in zip(clients, [0, 1, 1], [0, 0, 2], strict=True)
    ]

    def train_step(embeddings: EmbeddingBagCollection) -> None:
        embeddings(batch(1).sparse).sum().backward()
        embeddings.step()

    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            list(pool.map(train_step, collections[:2]))
        list(pool.map(train_step, [collections[0], collections[2]]))
    assert clients[0].pull("users", [1]).tolist() == [[-6.0] * DIM]
    with pytest.raises(ps.InvalidArgument, match="steps=-1"):
        Synchronous(Group("run", 0, 1), steps=-1)


def test_in_step_nothing_is_pulled_ahead(connect: Callable[[], ps.Client]) -> None:
    embeddings = EmbeddingBagCollection(connect(), [USERS], mode=Synchronous(Group("run", 0, 2)))
    Prefetcher([], embeddings, pull_ahead=0)
    with pytest.raises(ps.InvalidArgument, match="Use Bounded or Asynchronous, or pull_ahead=0"):
        Prefetcher([], embeddings, pull_ahead=1)


def test_thresholds_of_sums_go_by_one_pull_after_the_other(connect: Callable[[], ps.Client]) -> None:
    features = [Feature("users", "users", pooled="shard")]
    embeddings = EmbeddingBagCollection(connect(), [USERS], features, mask_sums=TopK(density=0.5, by="elements"))
    Prefetcher([], embeddings, pull_ahead=0)
    with pytest.raises(ps.InvalidArgument, match="pull_ahead=1 with mask_sums"):
        Prefetcher([], embeddings, pull_ahead=1)


def test_bags_that_the_shards_sum_are_in_step_too(connect: Callable[[], ps.Client]) -> None:
    clients = [connect(), connect()]

    def run(rank: int) -> None:
        features = [Feature("users", "users", pooled="shard")]
        mode = Synchronous(Group("run", rank, 2))
        embeddings = EmbeddingBagCollection(clients[rank], [ADAGRAD], features, mode=mode)
        train(embeddings, Prefetcher(OF_RANKS[rank], embeddings, 1))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))
    with ps.connect("inproc:") as alone:
        embeddings = EmbeddingBagCollection(alone, [ADAGRAD])
        for one, two in zip(*OF_RANKS, strict=True):
            both = batch(*one.sparse["users"].ids.tolist(), *two.sparse["users"].ids.tolist())
            train(embeddings, Prefetcher([both], embeddings, 1))
        ids = list(range(8))
        assert clients[0].pull("users", ids).tolist() == alone.pull("users", ids).tolist()


# bounded


def test_a_trainer_that_is_too_far_ahead_waits_for_the_slowest(connect: Callable[[], ps.Client]) -> None:
    first, second = (
        EmbeddingBagCollection(connect(), [USERS], mode=Bounded(Group("run", rank, 2, SHORT_S), max_staleness=2))
        for rank in range(2)
    )

    def make_a_step(trainer: EmbeddingBagCollection) -> None:
        trainer(batch(1).sparse).sum().backward()
        trainer.send()

    for _ in range(3):
        make_a_step(first)
    with pytest.raises(ps.DeadlineExceeded, match="rank 0 has made 3 steps and may be 2 ahead"):
        first(batch(1).sparse)
    make_a_step(second)
    with torch.no_grad():
        first(batch(1).sparse)  # evaluation waits for nobody
    second(batch(1).sparse)  # says that it has made one
    make_a_step(first)
    with pytest.raises(ps.DeadlineExceeded, match="rank 1 has made 1"):
        first(batch(1).sparse)
    second.finish()
    make_a_step(first)
    first.step()


def test_of_two_bounded_trainers_all_gradients_arrive(connect: Callable[[], ps.Client]) -> None:
    clients = [connect(), connect()]

    def run(rank: int) -> None:
        mode = Bounded(Group("run", rank, 2), max_staleness=1)
        embeddings = EmbeddingBagCollection(clients[rank], [USERS], mode=mode)
        train(embeddings, Prefetcher([batch(1, rank + 2)] * (20 + rank), embeddings, 1, pull_ahead=1))
        embeddings.finish()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))
    assert clients[0].pull("users", [1, 2, 3])[:, 0].tolist() == [-41.0, -20.0, -21.0]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Group("", 0, 2), "1 to 200 characters"),
        (lambda: Group("run", 2, 2), "rank 2 of 2"),
        (lambda: Group("run", 0, 2, patience_s=0.0), "positive number of seconds"),
    ],
)
def test_a_group_says_what_is_wrong_with_it(make: Callable[[], Group], match: str) -> None:
    with pytest.raises(ps.InvalidArgument, match=match):
        make()


def test_a_bound_is_checked_where_it_is_given(connect: Callable[[], ps.Client]) -> None:
    with pytest.raises(ps.InvalidArgument, match="max_staleness=-1"):
        EmbeddingBagCollection(connect(), [USERS], mode=Bounded(Group("run", 0, 2), max_staleness=-1))
    EmbeddingBagCollection(connect(), [USERS], mode=Asynchronous())
