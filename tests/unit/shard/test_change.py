"""Settings of an optimizer change while the table lives: from that point of the log on, on every kind of row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import ps
from ps.errors import ConfigError, SequenceConflict, TableExists, TableNotFound
from ps.optimizers.base import Optimizer
from ps.round import Round
from ps.shard import Shard, StepRef
from ps.shard.ledger import WriteId
from tests.conftest import QUIET
from tests.optimizers import EVERY, ROWWISE
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, push, push_ids, read
from tests.unit.shard.histories import held

ONES = np.ones((3, DIM), np.float32)
TT: dict[str, Any] = {"rows": 60, "ranks": 2, "hot_rows": 5, "lift_after": 1, "fold_tolerance": 0.5}
CORES_ONLY = ps.TensorTrain(rows=60, ranks=2, hot_rows=0)
OWN = ps.Adagrad(lr=0.1)
"""The optimizer of cores that have one of their own."""


@contextmanager
def running(**settings: Any) -> Iterator[Shard]:
    """A shard with one table."""
    shard = Shard(0, QUIET)
    try:
        new_table(shard, **{"initializer": ps.Uniform(low=-0.1, high=0.1), "half_life_pushes": 64, **settings})
        yield shard
    finally:
        shard.close()


def change(shard: Shard, cores: bool = False, **settings: float) -> int:
    return shard.set_optimizer(a_write(), "t", settings, cores)


def train(shard: Shard, pushes: int = 60, seed: int = 0) -> None:
    """Pushes long enough for rows to become cold, and to be lifted from the cores."""
    rng = np.random.default_rng(seed)
    for _ in range(pushes):
        ids = rng.permutation(40)[:12]
        push_ids(shard, "t", ids, rng.standard_normal((len(ids), DIM)))


def state(shard: Shard) -> list[object]:
    """All that the table is, but for what it was created as."""
    config, _, *rest = held(shard)["t"]  # type: ignore[misc]
    cores = shard.tables["t"].cold
    return [config, *rest, [each.tobytes() for each in _cores(cores)]]


def _cores(cold: Any) -> list[np.ndarray]:
    return cold._cores._cores.rows if hasattr(cold, "_cores") else []


def other(optimizer: Optimizer) -> dict[str, float]:
    """Another value of each setting that may change."""
    return {name: 0.7 * getattr(optimizer, name) + 1e-3 for name in optimizer.changeable}


def tables() -> Iterator[Any]:
    for kind, optimizer in EVERY.items():
        yield pytest.param({"optimizer": optimizer}, False, id=kind)
        yield pytest.param({"optimizer": optimizer, "device": "torch-cpu"}, False, id=f"{kind} on a device")
        states = ["fp16", *(["rowwise"] if kind in ROWWISE else [])]
        for kept in states:
            cold = ps.Fp16(hot_fraction=0.2, state=kept)
            yield pytest.param({"optimizer": optimizer, "cold": cold}, False, id=f"{kind}, cold rows of {kept}")
        if optimizer.core_alignment is not None:
            yield pytest.param({"optimizer": optimizer, "cold": ps.TensorTrain(**TT)}, False, id=f"{kind} and cores")
    own = {"optimizer": ps.Adam(), "cold": ps.TensorTrain(**TT, optimizer=OWN)}
    yield pytest.param(own, False, id="adam beside cores")
    yield pytest.param(own, True, id="cores of their own")


def changed_config(settings: Mapping[str, Any], cores: bool) -> tuple[dict[str, Any], dict[str, float]]:
    """Returns a configuration and how to come to it from the one given."""
    if cores:
        values = other(OWN)
        return {**settings, "cold": ps.TensorTrain(**TT, optimizer=OWN.having(values))}, values
    values = other(settings["optimizer"])
    return {**settings, "optimizer": settings["optimizer"].having(values)}, values


@pytest.mark.parametrize(("settings", "cores"), list(tables()))
def test_a_table_that_was_changed_trains_as_one_that_was_created_so(settings: dict[str, Any], cores: bool) -> None:
    wanted, values = changed_config(settings, cores)
    with running(**settings) as one, running(**wanted) as two, running(**settings) as same:
        change(one, cores, **values)
        for shard in (one, two, same):
            train(shard)
        assert state(one) == state(two)
        assert state(one)[1:] != state(same)[1:], "the change shows"


@pytest.mark.parametrize(("settings", "cores"), list(tables()))
def test_settings_that_come_back_train_as_if_they_had_stayed(settings: dict[str, Any], cores: bool) -> None:
    before = OWN if cores else settings["optimizer"]
    with running(**settings) as one, running(**settings) as two:
        for shard in (one, two):
            train(shard, 30)
        change(one, cores, **other(before))
        change(one, cores, **{name: getattr(before, name) for name in before.changeable})
        for shard in (one, two):
            train(shard, 30, seed=1)
        assert state(one) == state(two)


@pytest.mark.parametrize("cold", [None, ps.Fp16(hot_fraction=0.2), CORES_ONLY], ids=["plain", "fp16", "cores"])
@pytest.mark.parametrize("kind", [kind for kind, each in EVERY.items() if "lr" in each.changeable])
def test_a_rate_of_0_stops_the_values_until_it_is_another(kind: str, cold: Any) -> None:
    own = isinstance(cold, ps.TensorTrain) and EVERY[kind].core_alignment is None
    if own:
        cold = cold.model_copy(update={"optimizer": OWN})
    ids = range(40)
    with running(optimizer=EVERY[kind], cold=cold) as shard:
        train(shard)
        before = read(shard, "t", ids)
        change(shard, cores=own, lr=0)
        push_ids(shard, "t", ids, np.ones((40, DIM)))
        np.testing.assert_array_equal(read(shard, "t", ids), before)
        change(shard, cores=own, lr=0.5)
        push_ids(shard, "t", ids, np.ones((40, DIM)))
        assert (read(shard, "t", ids) != before).any(axis=1).all()


# at one point of the log


def test_a_push_that_was_begun_before_uses_the_settings_that_hold_when_it_is_applied() -> None:
    """Its step was prepared, it was looked ahead, its rows were there: none of that is an update."""
    with running(initializer=ps.Constant()) as shard:
        shard.prepare(StepRef(1, 1), [ids_of("t", [1, 2, 3])])
        with shard.look_ahead(StepRef(1, 1)) as by_step, shard.look_ahead([ids_of("t", [7, 8, 9])]) as by_ids:
            change(shard, lr=0.25)
            shard.push(a_write(), by_step, [grads_of("t", ONES)])
            shard.push(a_write(), by_ids, [grads_of("t", ONES)])
        np.testing.assert_array_equal(read(shard, "t", [1, 9]), np.full((2, DIM), -0.25))


def test_a_round_uses_the_settings_that_hold_when_it_is_whole() -> None:
    with running(initializer=ps.Constant()) as shard:
        target = [ids_of("t", [1, 2, 3])]
        with shard.look_ahead(target) as one, shard.look_ahead(target) as two:
            first = shard.rounds.join(Round("g", 1, 0, 2), 10, a_write(8), one, [grads_of("t", ONES)])
            change(shard, lr=0.25)
            shard.rounds.join(Round("g", 1, 1, 2), 10, a_write(9), two, [grads_of("t", ONES)])
            assert first.outcome.result().version == 3
        np.testing.assert_array_equal(read(shard, "t", [1]), np.full((1, DIM), -0.5))


# once


def test_a_change_that_is_sent_again_is_answered_and_not_made_again() -> None:
    first, second = WriteId(5, 1, 11), WriteId(5, 2, 12)
    with running(optimizer=ps.Adagrad()) as shard:
        version = shard.set_optimizer(first, "t", {"lr": 0.5})
        assert shard.set_optimizer(second, "t", {"lr": 0.25}) == shard.version == version + 1
        assert shard.set_optimizer(first, "t", {"lr": 0.5}) == version
        assert shard.tables["t"].config.optimizer == ps.Adagrad(lr=0.25)
        with pytest.raises(SequenceConflict):
            shard.set_optimizer(WriteId(5, 1, 13), "t", {"lr": 0.1})
        assert shard.version == version + 1


def test_settings_that_are_not_named_stay() -> None:
    with running(optimizer=ps.Adam(lr=0.1)) as shard:
        change(shard, beta1=0.5, lr=0.2)
        change(shard, eps=1e-4)
        assert shard.tables["t"].config.optimizer == ps.Adam(lr=0.2, beta1=0.5, eps=1e-4)


REFUSED: dict[str, tuple[dict[str, Any], bool, dict[str, float], str]] = {
    "a name that is none": (
        {},
        False,
        {"learning_rate": 1},
        "no setting 'learning_rate'; what may change of sgd is lr",
    ),
    "nothing": (
        {"optimizer": ps.Adam()},
        False,
        {},
        "no settings given; what may change of adam is lr, beta1, beta2, eps",
    ),
    "what rows begin with": (
        {"optimizer": ps.Adagrad()},
        False,
        {"lr": 1, "initial_accumulator": 1},
        "initial_accumulator cannot change while there are rows.*For another initial_accumulator create another table",
    ),
    "the rate of FTRL": ({"optimizer": ps.FTRL()}, False, {"alpha": 1}, "alpha cannot change.*of ftrl is l1, l2"),
    "the kind": ({}, False, {"kind": 1}, "kind cannot change"),
    "a negative rate": ({}, False, {"lr": -0.5}, r"SGD: lr: Input should be greater than or equal to 0 \(got -0.5\)"),
    "no number": ({}, False, {"lr": float("nan")}, "SGD: lr: .*nan"),
    "an eps of 0": ({"optimizer": ps.Adam()}, False, {"eps": 0}, "Adam: eps: "),
    "cores that there are not": ({}, True, {"lr": 1}, "'t' has no cores.*leave cores=True out"),
    "cores without one": ({"cold": ps.TensorTrain(**TT)}, True, {"lr": 1}, "have the table's optimizer"),
    "another's setting of cores": (
        {"cold": ps.TensorTrain(**TT, optimizer=OWN)},
        True,
        {"beta1": 0.5},
        "of adagrad is lr, eps",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_not_change_is_refused_and_nothing_has_changed(case: str) -> None:
    settings, cores, values, says = REFUSED[case]
    with running(**settings) as shard:
        before = held(shard)
        with pytest.raises(ConfigError, match=says):
            change(shard, cores, **values)
        assert held(shard) == before
        with pytest.raises(TableNotFound):
            shard.set_optimizer(a_write(), "absent", {"lr": 1})


# create, once it has changed


def test_a_table_that_has_changed_is_there_as_it_was_created_and_as_it_is() -> None:
    with running(optimizer=ps.Adagrad(lr=0.5)) as shard:
        created = shard.tables["t"].config
        change(shard, lr=0.25)
        is_ = shard.tables["t"].config
        assert is_ == created.model_copy(update={"optimizer": ps.Adagrad(lr=0.25)})
        for config in (created, is_):
            assert not shard.create_table(config, exist_ok=True)
        assert shard.tables["t"].config == is_, "it stays as it is"
        asked = created.model_copy(update={"optimizer": ps.Adagrad(lr=0.125)})
        with pytest.raises(TableExists, match=r"The table can be that: client\.set_optimizer\('t', lr=0\.125\)"):
            shard.create_table(asked, exist_ok=True)
        for differs in (
            asked.model_copy(update={"seed": 3}),
            created.model_copy(update={"optimizer": ps.Adagrad(lr=0.1, initial_accumulator=1)}),
            created.model_copy(update={"optimizer": ps.SGD(lr=0.1)}),
        ):
            with pytest.raises(TableExists, match="you asked for") as refused:
                shard.create_table(differs, exist_ok=True)
            assert "can be that" not in str(refused.value)


def test_a_table_that_is_created_again_has_what_it_is_created_with() -> None:
    with running(initializer=ps.Constant()) as shard:
        change(shard, lr=0.25)
        config = shard.tables["t"].created_as
        shard.drop_table("t")
        assert shard.create_table(config)
        push(shard, [ids_of("t", [1])], grads_of("t", ONES[:1]))
        np.testing.assert_array_equal(read(shard, "t", [1]), np.full((1, DIM), -1.0))
