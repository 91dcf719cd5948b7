"""`client.set_optimizer`: on every shard, once, from the next push on; and what is said if a shard does not answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import ps
from ps.client.connection.connection import Connection
from ps.cluster.coordinator.coordinator import Coordinator
from ps.errors import ConfigError
from ps.optimizers.base import Optimizer
from ps.v1 import control_pb2 as control
from ps.wire import methods
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.faults import Faults, Rates
from tests.loopback.tables import DIM, block, summing
from tests.waiting import busy_engine
from tests.wire_calls import RawCalls, error_of

IDS = np.arange(30)
STEPS = 24


def optimizers_of_shards(cluster: LoopbackCluster) -> list[Optimizer]:
    return [server.shard.tables["t"].config.optimizer for server in cluster.servers]


def versions(cluster: LoopbackCluster) -> list[int]:
    return [server.shard.version for server in cluster.servers]


# what it is for


def schedule(step: int) -> float:
    """A warm-up from 0, then half a cosine."""
    return step / 4 if step < 4 else (1 + math.cos(math.pi * (step - 4) / (STEPS - 4))) / 2


@pytest.mark.parametrize(
    ("optimizer", "of_torch"),
    [
        (ps.SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (ps.Adagrad(lr=0.1, eps=1e-8), lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8)),
        (ps.Adam(lr=0.1), lambda p: torch.optim.SparseAdam(p, lr=0.1)),
    ],
    ids=["sgd", "adagrad", "adam"],
)
@pytest.mark.parametrize("by_step", [False, True], ids=["by ids", "prepared"])
def test_a_schedule_of_torch_trains_as_torch_does(
    cluster: LoopbackCluster, optimizer: Optimizer, of_torch: Callable[[Any], torch.optim.Optimizer], by_step: bool
) -> None:
    rng = np.random.default_rng(0)
    table = torch.nn.Embedding(len(IDS), DIM, sparse=True)
    trains = of_torch(table.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(trains, schedule)
    with ps.connect(cluster.address) as client, torch.sparse.check_sparse_tensor_invariants():
        client.create_table(ps.TableConfig(name="t", dim=DIM, optimizer=optimizer))
        client.upsert("t", IDS, table.weight.detach().numpy())
        for number in range(STEPS):
            ids, target = rng.permutation(IDS), rng.standard_normal((len(IDS), DIM)).astype(np.float32)
            step = client.prepare({"t": ids}) if by_step else client.step({"t": ids})
            client.set_optimizer("t", lr=scheduler.get_last_lr()[0])  # behind the prepare, before the push
            if number == STEPS // 2 and isinstance(optimizer, ps.Adam):
                trains.param_groups[0]["betas"] = (0.5, 0.9)
                client.set_optimizer("t", beta1=0.5, beta2=0.9)
            rows = torch.tensor(step.pull()["t"], requires_grad=True)
            for values in (rows, table(torch.tensor(ids))):
                (values - torch.tensor(target)).square().sum().mul(0.5).backward()
            assert rows.grad is not None
            step.push({"t": rows.grad.numpy()})
            trains.step()
            trains.zero_grad()
            scheduler.step()
        np.testing.assert_allclose(client.pull("t", IDS), table.weight.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_rate_holds_from_the_next_push_on_for_every_client(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as one, ps.connect(cluster.servers[1].address) as other:
        one.create_table(summing())
        other.push("t", IDS, block(np.ones(30)))
        config = one.set_optimizer("t", lr=0.25)
        other.push("t", IDS, block(np.ones(30)))
        np.testing.assert_array_equal(one.pull("t", IDS), block(np.full(30, -1.25)))
        assert config == summing().model_copy(update={"optimizer": ps.SGD(lr=0.25)})
        for client in (one, other):
            assert client.tables() == {"t": config}
        assert optimizers_of_shards(cluster) == [ps.SGD(lr=0.25)] * 3


def test_a_shard_alone_is_changed_too() -> None:
    with ps.connect("inproc:") as client:
        client.create_table(summing())
        client.set_optimizer("t", lr=np.float32(0.5))
        client.push("t", [1], block([1]))
        np.testing.assert_array_equal(client.pull("t", [1]), block([-0.5]))


def test_cores_with_an_optimizer_of_their_own_are_changed_by_themselves() -> None:
    cold = ps.TensorTrain(rows=100, optimizer=ps.Adagrad(lr=0.1))
    with ps.connect("inproc:shards=2") as client:
        client.create_table(ps.TableConfig(name="t", dim=DIM, optimizer=ps.Adam(), cold=cold))
        config = client.set_optimizer("t", cores=True, lr=0.5)
        assert config.optimizer == ps.Adam()
        assert config.cold == cold.model_copy(update={"optimizer": ps.Adagrad(lr=0.5)})
        with pytest.raises(ConfigError, match="no setting 'beta1'; what may change of adagrad is lr, eps"):
            client.set_optimizer("t", cores=True, beta1=0.5)


# what is refused


@pytest.fixture(scope="module")
def adagrad() -> Iterator[ps.Client]:
    """A client of two shards with one table, that nothing of the following changes."""
    with ps.connect("inproc:shards=2") as client:
        client.create_table(summing().model_copy(update={"optimizer": ps.Adagrad()}))
        yield client


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"learning_rate": 0.1}, "no setting 'learning_rate'; what may change of adagrad is lr, eps"),
        ({"initial_accumulator": 0.1}, "initial_accumulator cannot change while there are rows"),
        ({"lr": -1.0}, "Adagrad: lr: Input should be greater than or equal to 0"),
        ({"lr": math.nan}, "Adagrad: lr: "),
        ({"lr": "fast"}, "Adagrad: lr: Input should be a valid number"),
        ({"eps": 0.0}, "Adagrad: eps: "),
        ({}, "no settings given; what may change of adagrad is lr, eps"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_before_anything_is_sent(adagrad: ps.Client, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        adagrad.set_optimizer("t", **settings)
    with pytest.raises(ps.TableNotFound):
        adagrad.set_optimizer("absent", lr=1)
    assert "SetOptimizer" not in str(adagrad.traffic())


def test_a_foreign_client_is_refused_before_any_shard_is_asked(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client, RawCalls(cluster.address) as calls:
        client.create_table(summing())
        before = versions(cluster)
        for request, kind in (
            (control.SetOptimizerRequest(table="t", settings={"lr": -1}), ConfigError),
            (control.SetOptimizerRequest(table="t", settings={"x" * 5000: 1}), ConfigError),
            (control.SetOptimizerRequest(table="t"), ConfigError),
            (control.SetOptimizerRequest(table="absent", settings={"lr": 1}), ps.TableNotFound),
            (control.SetOptimizerRequest(table="x" * 5000, settings={"lr": 1}), ps.TableNotFound),
        ):
            error = error_of(calls.call, methods.SET_OPTIMIZER, request.SerializeToString())
            assert type(error) is kind
            assert len(str(error)) < 500
        assert versions(cluster) == before


def test_a_client_that_knew_another_table_of_that_name_asks_again(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as one, ps.connect(cluster.address) as other:
        one.create_table(summing())
        assert set(other.tables()) == {"t"}
        one.drop_table("t")
        one.create_table(summing().model_copy(update={"optimizer": ps.Adam()}))
        assert other.set_optimizer("t", beta1=0.5).optimizer == ps.Adam(beta1=0.5)


# once, and everywhere


@pytest.mark.parametrize("fault", ["drop_request", "drop_response", "repeat", "late"])
def test_it_is_made_once_whatever_the_network_does(cluster: LoopbackCluster, fault: str) -> None:
    faults = Faults(5, Rates(**{fault: 0.5}, methods=(methods.SET_OPTIMIZER,)))
    with ps.Client(Connection(cluster.address, faults.open)) as client:
        client.create_table(summing())
        for number in range(1, 9):
            client.set_optimizer("t", lr=number)
            assert optimizers_of_shards(cluster) == [ps.SGD(lr=number)] * 3
    assert faults.seen[fault] > 1
    assert versions(cluster) == [9] * 3, "the table, and each change once"


def test_where_a_shard_does_not_answer_the_error_says_which_have_it(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
        with busy_engine(cluster.servers[1].shard):
            with pytest.raises((ps.DeadlineExceeded, ps.Unavailable)) as failed:
                client.set_optimizer("t", lr=0.5, timeout_s=0.6)
            assert "was changed on shards [0] and perhaps on shard 1, on no other: set it again" in str(failed.value)
            assert optimizers_of_shards(cluster)[::2] == [ps.SGD(lr=0.5), ps.SGD(lr=1.0)]
        assert client.set_optimizer("t", lr=0.5).optimizer == ps.SGD(lr=0.5)
        assert optimizers_of_shards(cluster) == [ps.SGD(lr=0.5)] * 3
        assert client.tables()["t"].optimizer == ps.SGD(lr=0.5)


def test_where_the_first_shard_refuses_no_shard_has_it(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
        cluster.servers[0].service.state_lost = "it was restarted"
        with pytest.raises(ps.StateLost) as failed:
            client.set_optimizer("t", lr=0.5)
        assert "was changed on" not in str(failed.value)
        assert optimizers_of_shards(cluster) == [ps.SGD(lr=1.0)] * 3


def test_where_a_later_shard_refuses_the_others_are_named(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
        cluster.servers[2].service.state_lost = "it was restarted"
        with pytest.raises(ps.StateLost, match=r"was changed on shards \[0, 1\], on no other"):
            client.set_optimizer("t", lr=0.5)


# who knows it


def test_a_trainer_that_starts_again_finds_its_table(cluster: LoopbackCluster) -> None:
    """It creates it with what its program says, and the rate stays where the schedule was."""
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
        client.set_optimizer("t", lr=0.5)
    with ps.connect(cluster.address) as again:
        found = again.create_table(summing(), exist_ok=True)
        assert found.optimizer == ps.SGD(lr=0.5)
        assert again.create_table(found, exist_ok=True) == found
        assert again.tables() == {"t": found}
        with pytest.raises(ps.TableExists, match=r"client\.set_optimizer\('t', lr=0\.125\)"):
            again.create_table(summing().model_copy(update={"optimizer": ps.SGD(lr=0.125)}), exist_ok=True)


def test_a_coordinator_that_is_new_learns_it_from_the_shards(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
        client.set_optimizer("t", lr=0.5)
    fresh = Coordinator(QUIET)
    try:
        fresh.adopt([server.report for server in cluster.servers], 3)
        with ps.connect(fresh.address) as client:
            assert client.tables()["t"].optimizer == ps.SGD(lr=0.5)
    finally:
        fresh.stop()
