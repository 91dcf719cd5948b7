"""How far ahead batches are prepared, and that it changes no value."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import ps
from ps.client.lease import Lease
from ps.errors import InvalidArgument
from ps.nn import Bags, EmbeddingBagCollection, Feature, Prefetcher
from ps.nn.batch import Batch
from ps.nn.depth import DEEPEST, SHALLOWEST, SHRINK_AFTER_STEPS, START, Depth
from ps.runtime.clock import SYSTEM_CLOCK
from tests.conftest import StartServer
from tests.waiting import until
from worker.data.synthetic import Synthetic
from worker.train.trainer import Trainer


def after(steps: int, prepare_s: float, step_s: float, depth: Depth | None = None) -> int:
    depth = depth or Depth()
    for _ in range(steps):
        depth.observe(prepare_s, step_s)
    return depth.now


@pytest.mark.parametrize(
    ("prepare_s", "expected"),
    [(0.0, SHALLOWEST), (0.001, SHALLOWEST), (0.009, 2), (0.019, 3), (0.045, 6), (0.2, DEEPEST), (60.0, DEEPEST)],
)
def test_the_depth_is_what_passes_while_a_batch_is_prepared(prepare_s: float, expected: int) -> None:
    assert after(10 * SHRINK_AFTER_STEPS, prepare_s, step_s=0.01) == expected


def test_it_grows_at_once_and_shrinks_slowly() -> None:
    depth = Depth()
    assert after(1, 1.0, 0.01, depth) == DEEPEST
    assert after(SHRINK_AFTER_STEPS, 0.0, 0.01, depth) == DEEPEST, "the spike is still in the mean"
    assert after(DEEPEST * SHRINK_AFTER_STEPS, 0.0, 0.01, depth) == SHALLOWEST


@pytest.mark.parametrize("prepare_steps", [1.5, 3.0, 5.0])
def test_it_finds_the_depth_though_steps_wait_for_prepares_that_are_late(prepare_steps: float) -> None:
    """A step takes as long as it waits: at too small a depth all that can be measured is that depth."""
    depth = Depth()
    for _ in range(1000):
        depth.observe(prepare_steps, max(1.0, prepare_steps / depth.now))
    assert prepare_steps <= depth.now <= prepare_steps + 2


def test_steps_of_no_time_are_no_division_by_zero() -> None:
    assert after(5, 0.0, 0.0) == after(5, 1.0, 0.0) == DEEPEST


class Given(Depth):
    """Learns nothing."""

    def observe(self, prepare_s: float, step_s: float) -> None:
        pass


class Loader:
    """Batches of one id, and how many have been asked for."""

    def __init__(self, n: int) -> None:
        self._n = n
        self.loaded = 0

    def __iter__(self) -> Iterator[Batch]:
        for i in range(self._n):
            self.loaded += 1
            yield Batch(torch.zeros(1, 1), {"t": Bags(torch.tensor([i]), torch.tensor([0]))}, torch.zeros(1))


@pytest.fixture
def embeddings() -> Iterator[EmbeddingBagCollection]:
    with ps.connect("inproc:") as client:
        yield EmbeddingBagCollection(client, [ps.TableConfig(name="t", dim=2)], [Feature("t", "t")])


def ids(batches: Iterator[object]) -> list[int]:
    return [int(batch.sparse.bags["t"].ids) for batch in batches]  # type: ignore[attr-defined]


def test_a_change_of_depth_loses_and_repeats_no_batch(embeddings: EmbeddingBagCollection) -> None:
    loader = Loader(30)
    prefetcher = Prefetcher(loader, embeddings)
    prefetcher._auto = given = Given()
    batches = iter(prefetcher)
    seen, ahead = [], []
    for depth, steps in [(START, 3), (DEEPEST, 5), (SHALLOWEST, 5), (5, 5)]:
        for _ in range(steps):
            given.now = depth
            seen += ids(islice(batches, 1))
        ahead.append(loader.loaded - len(seen))
    assert ahead == [START, DEEPEST, 3, 5], "five steps of what was ahead, none of them replaced"
    seen += ids(batches)
    assert seen == list(range(30))


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_a_number_stays(embeddings: EmbeddingBagCollection, depth: int) -> None:
    loader = Loader(20)
    prefetcher = Prefetcher(loader, embeddings, depth)
    for taken, _ in enumerate(prefetcher, 1):
        assert loader.loaded == min(taken + depth, 20)
    assert prefetcher.depth == depth


@pytest.mark.parametrize("depth", [-1, "deep", 1.5, None])
def test_no_other_depth_will_do(embeddings: EmbeddingBagCollection, depth: object) -> None:
    with pytest.raises(InvalidArgument, match="depth="):
        Prefetcher([], embeddings, depth)  # type: ignore[arg-type]


def losses(server_address: str, depth: object) -> list[float]:
    """Of a model whose rows are nearly all on disk."""
    source = Synthetic(rows=256 * 40, total_ids=20_000, table="ids")
    with ps.connect(server_address) as client:
        table = ps.TableConfig(name="ids", dim=4, optimizer=ps.Adagrad(lr=0.1), swap_fraction=0.9)
        trainer = Trainer(client, source, [table], dense_lr=0.02, seed=0)
        prefetcher = Prefetcher(source.batches(256), trainer.embeddings, depth)  # type: ignore[arg-type]
        found = [trainer.step(batch) for batch in prefetcher]
        raised = client.stats()["shards"][0]["tables"]["ids"]["rows_raised"]
        assert raised > 0, "rows came up from disk"
        client.drop_table("ids")
    return found


def test_losses_are_the_same_whatever_the_depth(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(disk={"path": tmp_path})
    expected = losses(server.address, 1)
    assert len(set(expected)) == len(expected) == 40
    for depth in (0, 4, "auto"):
        np.testing.assert_array_equal(losses(server.address, depth), expected)


def test_the_time_of_a_prepare_ends_with_the_last_answer(embeddings: EmbeddingBagCollection) -> None:
    answers: dict[int, Future[bool]] = {0: Future(), 1: Future()}
    step = Lease(10**6, embeddings.client._session.connection.routing, answers, lambda shard: None, SYSTEM_CLOCK)
    answers[0].set_result(True)
    running_s = step.prepare_s
    until(lambda: step.prepare_s > running_s)
    answers[1].set_result(False)
    assert step.prepare_s == step.prepare_s > running_s
