"""The dense part's hook under DistributedDataParallel: two processes, gloo. What needs no processes: test_dense.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from dense_programs import (
    bytes_of_collectives,
    gradients_by_layer,
    integers,
    interrupted,
    refused,
    trained,
    with_a_step_that_is_not_finite,
)
from dense_ranks import RankPair, rank_pair

from ps.nn.dense import DenseConfig, LayerConfig

pytestmark = pytest.mark.slow  # two processes that import torch, and what DDP imports with it
PER_LAYER = DenseConfig(
    density=0.05,
    layers={"0.*": LayerConfig(1.0), "4.weight": LayerConfig(0.2, every=3), "*.bias": LayerConfig(1.0, every=2)},
    reestimate_every=3,
    warm_up_steps=2,
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankPair]:
    with rank_pair(tmp_path_factory.mktemp("ranks")) as pair:
        yield pair


@pytest.mark.parametrize("config", [DenseConfig(), DenseConfig(values="fp32", density=0.3), PER_LAYER])
def test_ranks_have_the_same_parameters_bit_for_bit(ranks: RankPair, config: DenseConfig) -> None:
    ours, theirs = ranks.run(trained, config, 12, {"momentum": 0.9})
    assert torch.equal(ours["parameters"], theirs["parameters"])
    assert ours["parameters"].isfinite().all()


def test_with_all_sent_it_is_plain_ddp(ranks: RankPair) -> None:
    plain, _ = ranks.run(trained, None, 20, {})
    for config in (
        DenseConfig(density=1.0),
        DenseConfig(warm_up_steps=20),
        DenseConfig(density=1 - 1e-9, values="fp32", reestimate_every=1),  # all of it, but as a payload
    ):
        hooked, _ = ranks.run(trained, config, 20, {})
        torch.testing.assert_close(hooked["parameters"], plain["parameters"])
        assert 0.98 < hooked["stats"].factor <= 1.0
    sparse, _ = ranks.run(trained, DenseConfig(), 20, {})
    assert not torch.allclose(sparse["parameters"], plain["parameters"], atol=1e-3), "or nothing was compared"


@pytest.mark.parametrize("config", [DenseConfig(density=0.05), PER_LAYER])
@pytest.mark.parametrize("before", [1, 4])
def test_a_restored_trainer_goes_on_bit_by_bit(ranks: RankPair, config: DenseConfig, before: int) -> None:
    """Before its first step DDP's buckets are in another order than afterwards; the new trainer begins with those."""
    for answer in ranks.run(interrupted, config, before, 5):
        assert torch.equal(*answer["parameters"])
        assert answer["stats"][0] == answer["stats"][1]


@pytest.mark.parametrize("options", [{}, {"gradient_as_bucket_view": True}, {"static_graph": True}])
def test_applied_and_held_back_are_all_gradients_exactly(ranks: RankPair, options: dict[str, Any]) -> None:
    layers = {"tower.1.*": LayerConfig(0.1, every=3)}
    answers = ranks.run(integers, DenseConfig(density=0.1, layers=layers, reestimate_every=2), 10, options)
    truth = answers[0]["truth"] + answers[1]["truth"]
    held = answers[0]["residual"] + answers[1]["residual"]
    for answer in answers:
        assert held.any()
        assert torch.equal(2 * answer["applied"] + held, truth)
        assert torch.equal(2 * answer["flushed"], truth)
        assert not answer["left"].any()


def test_each_layer_goes_by_its_own_setting(ranks: RankPair) -> None:
    steps, _ = ranks.run(gradients_by_layer, PER_LAYER, 8)
    for step, counts in enumerate(steps):
        warm, last_of_two, last_of_three = step < 2, step % 2 == 1, step % 3 == 2
        assert counts["0.weight"] > 900, "the first layer is synchronous"
        assert (counts["2.weight"] > 4000) == warm
        assert counts["2.weight"] > 0
        assert (counts["2.bias"] > 0) == (warm or last_of_two)
        assert (counts["4.weight"] > 0) == (warm or last_of_three)
    assert steps[5]["4.weight"] <= 2 * 13 * 1.25


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("layer", ["0.weight", "2.weight", "4.weight", "4.bias"])
@pytest.mark.parametrize("what", [{0: 0.0, 1: NAN}, {0: INF, 1: -INF}, {0: INF, 1: 0.0}, {0: 3e38, 1: 3e38}])
@pytest.mark.parametrize("config", [DenseConfig(density=0.05), PER_LAYER, DenseConfig(density=1.0)])
def test_a_step_that_is_not_finite_is_plain_ddps_and_changes_nothing_held_back(
    ranks: RankPair, config: DenseConfig, layer: str, what: dict[int, float]
) -> None:
    """By layer: it is sent whole, in part, not in this step."""
    (plain, _), _ = ranks.run(with_a_step_that_is_not_finite, None, layer, what)
    whole_layer = config.density == 1.0 or (config is PER_LAYER and layer in ("0.weight", "4.bias"))
    for with_it, without in ranks.run(with_a_step_that_is_not_finite, config, layer, what):
        if what[1] == 3e38 and not whole_layer:  # only their sum is too large, and a part is not added up
            assert with_it["stats"].steps_not_finite == 0
            continue
        torch.testing.assert_close(with_it["gradients"], plain["gradients"], equal_nan=True)
        assert with_it["gradients"].isfinite().all() == (what[1] == 3e38)
        assert not any(with_it["touched"])
        assert with_it["stats"].steps_not_finite == 1
        assert torch.equal(with_it["parameters"], without["parameters"])
        assert torch.equal(with_it["held"], without["held"])
        assert with_it["held"].isfinite().all()


@pytest.mark.parametrize("config", [DenseConfig(), PER_LAYER])
def test_bytes_are_those_given_to_the_collectives(ranks: RankPair, config: DenseConfig) -> None:
    for gathered, reduced, stats in ranks.run(bytes_of_collectives, config, 9):
        assert stats.position_bytes + stats.value_bytes + stats.header_bytes == gathered
        assert stats.all_reduce_bytes == reduced, "two ranks: 2 (2 - 1) / 2 times"
        assert stats.sent_bytes == gathered + reduced
        assert stats.dense_bytes == 9 * 4 * (16 * 64 + 64 + 64 * 64 + 64 + 64 + 1)


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("config", "InvalidArgument: rank R has .*density=.*same DenseConfig"),
        ("pattern", r"ConfigError: layers: \['deep.\*'\] match none"),
        ("rank", "InvalidArgument: .*rank 0 of 2"),
        ("step", r"InvalidArgument: rank R has \('loaded, step', .\).*saved at the same step"),
        ("dtype", "DtypeMismatch: weight is torch.float16"),
        ("unused", "InvalidArgument: .*find_unused_parameters=False"),
    ],
)
def test_what_cannot_work_is_refused_on_all_ranks(ranks: RankPair, case: str, told: str) -> None:
    answers = ranks.run(refused, case)
    for rank, answer in enumerate(answers):
        assert answer != "nothing"
        assert _matches(told.replace("rank R", f"rank {rank}"), answer), answer


def _matches(pattern: str, text: str) -> bool:
    try:
        with pytest.raises(ValueError, match=pattern):
            raise ValueError(text)
    except AssertionError:
        return False
    return True


def test_it_learns_as_dense_ddp_does_and_without_error_feedback_it_does_not(ranks: RankPair) -> None:
    dense, hooked, dropped = (
        [ranks.run(trained, config, 1000, {"lr": 0.1, "seed": seed})[0] for seed in range(3)]
        for config in (None, DenseConfig(), DenseConfig(error_feedback=False))
    )
    assert min(answer["stats"].factor for answer in hooked) >= 100
    losses = [[answer["loss"] for answer in answers] for answers in (dense, hooked, dropped)]
    noise = max(losses[0]) - min(losses[0])
    assert np.mean(losses[1]) - np.mean(losses[0]) <= noise, losses
    assert min(losses[2]) - max(losses[0]) > 10 * noise, losses
