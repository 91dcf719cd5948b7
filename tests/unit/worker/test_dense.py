"""The dense part's compression in one process: thresholds, no gradient lost. With DDP: test_dense_ddp.py."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ps.errors import ConfigError, InvalidArgument, LengthMismatch
from ps.nn.dense import DenseConfig, DenseStats, LayerConfig
from ps.nn.dense.compressor import Compressor, all_finite
from ps.nn.dense.threshold import Scratch, Threshold

SIZES = {"bottom.weight": 37, "bottom.bias": 1, "top.weight": 20, "top.bias": 5}


class Ranks:
    """Compressors of several ranks that exchange by hand."""

    def __init__(self, count: int, config: DenseConfig) -> None:
        self.config = config
        self.ranks = [self.new() for _ in range(count)]

    def new(self) -> Compressor:
        return Compressor({name: torch.zeros(size) for name, size in SIZES.items()}, self.config)

    def step(self, grads: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """One gradient by name for each rank -> the mean that all of them get. Overwrites grads."""
        outgoing = [rank.start(mine) for rank, mine in zip(self.ranks, grads, strict=True)]
        whole_sum = torch.stack([out.whole_buffer for out in outgoing]).sum(0)
        payloads = [out.packed.payload for out in outgoing if out.packed]
        for rank, mine, out in zip(self.ranks, grads, outgoing, strict=True):
            rank.finish(mine, out, whole_sum.clone(), payloads, len(self.ranks))
        for other in grads[1:]:
            assert all(torch.equal(grads[0][name], other[name]) for name in SIZES)
        return grads[0]

    def restart(self, index: int) -> None:
        """A new process with what the old one saved to a file."""
        file = io.BytesIO()
        torch.save(self.ranks[index].state_dict(), file)
        file.seek(0)
        self.ranks[index] = self.new()
        self.ranks[index].load_state_dict(torch.load(file, weights_only=True))

    def residual(self, name: str) -> torch.Tensor:
        return torch.stack([rank.residuals()[name] for rank in self.ranks]).sum(0)


def gradients(rng: np.random.Generator, high: int) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(rng.integers(-high, high + 1, size).astype(np.float32)) for name, size in SIZES.items()
    }


layer_configs = st.builds(LayerConfig, density=st.sampled_from([0.01, 0.1, 0.5, 1.0]), every=st.integers(1, 4))
configs = st.builds(
    DenseConfig,
    density=st.sampled_from([0.01, 0.2, 1.0]),
    layers=st.dictionaries(st.sampled_from(["bottom.*", "*.bias", "top.weight"]), layer_configs),
    values=st.sampled_from(["fp32", "fp16"]),
    reestimate_every=st.integers(1, 5),
    max_overshoot=st.sampled_from([1.0, 1.5, 100.0]),
    sample_size=st.sampled_from([8, 65_536]),
    warm_up_steps=st.integers(0, 3),
)


@settings(max_examples=60)
@given(
    config=configs,
    ranks=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**31),
    high=st.sampled_from([1, 100, 30_000]),
    restarts=st.lists(st.integers(0, 9)),
)
def test_applied_and_held_back_are_all_gradients_exactly_and_over_restarts(
    config: DenseConfig, ranks: int, seed: int, high: int, restarts: list[int]
) -> None:
    rng, group, untouched = np.random.default_rng(seed), Ranks(ranks, config), Ranks(ranks, config)
    truth = {name: torch.zeros(size) for name, size in SIZES.items()}
    applied = {name: torch.zeros(size) for name, size in SIZES.items()}
    for step in range(10):
        grads = [gradients(rng, high) for _ in range(ranks)]
        for name in SIZES:
            truth[name] += sum(mine[name] for mine in grads)
        expected = untouched.step([{name: grad.clone() for name, grad in mine.items()} for mine in grads])
        mean = group.step(grads)
        for name in SIZES:
            assert torch.equal(mean[name], expected[name]), "a restart changes nothing"
            applied[name] += ranks * mean[name]
            assert torch.equal(applied[name] + group.residual(name), truth[name])
        if step in restarts:
            group.restart(step % ranks)


def test_without_error_feedback_the_rest_is_gone() -> None:
    group = Ranks(1, DenseConfig(density=0.2, values="fp32", error_feedback=False))
    first = gradients(np.random.default_rng(0), 100)
    sent = group.step([{name: grad.clone() for name, grad in first.items()}])
    assert all(0 < (sent[name] != 0).sum() < max(2, size) for name, size in SIZES.items())
    nothing = group.step([{name: torch.zeros(size) for name, size in SIZES.items()}])
    assert all(not grad.any() for grad in nothing.values())


def test_each_layer_goes_by_its_own_setting() -> None:
    layers = {"bottom.*": LayerConfig(1.0), "*.bias": LayerConfig(1.0, every=3)}
    group = Ranks(2, DenseConfig(density=0.1, layers=layers, reestimate_every=1))
    truth, rng = torch.zeros(5), np.random.default_rng(1)
    for step in range(6):
        grads = [gradients(rng, 100) for _ in range(2)]
        bottom, bias = (sum(mine[name] for mine in grads) / 2 for name in ("bottom.weight", "bottom.bias"))
        truth += sum(mine["top.bias"] for mine in grads) / 2  # type: ignore[arg-type]
        mean = group.step(grads)
        assert torch.equal(mean["bottom.weight"], bottom), "synchronous"
        assert torch.equal(mean["bottom.bias"], bias), "the first pattern that matches counts"
        assert 1 <= (mean["top.weight"] != 0).sum() <= 4, "two of twenty from each rank"
        if step % 3 == 2:
            assert torch.equal(mean["top.bias"], truth), "relaxed: the sum of three steps"
            truth.zero_()
        else:
            assert not mean["top.bias"].any()


def select_all(grads_TN: Iterable[torch.Tensor], config: DenseConfig) -> tuple[Threshold, list[float]]:
    """A layer's way through these gradients: its threshold, and the share sent in each step, 1 for what was asked."""
    threshold, layer, shares = Threshold(), LayerConfig(config.density), []
    held_n, scratch = torch.zeros(0), Scratch(0, torch.device("cpu"))
    for grads_n in grads_TN:
        if not len(held_n):
            held_n, scratch = torch.zeros_like(grads_n), Scratch(len(grads_n), grads_n.device)
        held_n += grads_n
        chosen_k = threshold.select(held_n, scratch, layer, config)
        held_n[chosen_k] = 0
        shares.append(len(chosen_k) / layer.elements(len(grads_n)))
    return threshold, shares


def noise(scales_T: Iterable[float], size: int = 4_000, seed: int = 0) -> Iterator[torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(size, generator=source) for scale in scales_T)


STEPS = 400
SCALES = {
    "one_size": [1.0] * STEPS,
    "one_percent_smaller_each": [0.99**t for t in range(STEPS)],
    "one_percent_larger_each": [1.01**t for t in range(STEPS)],
    "as_1_over_t": [1 / (1 + t) for t in range(STEPS)],
    "a_tenth_from_now_on": [1.0] * 150 + [0.1] * (STEPS - 150),
    "large_at_first": [100.0] + [1.0] * (STEPS - 1),
}


@pytest.mark.parametrize("density", [0.01, 0.1])
@pytest.mark.parametrize("scales", SCALES.values(), ids=SCALES.keys())
def test_the_share_asked_is_sent_while_gradients_change_their_size(scales: list[float], density: float) -> None:
    threshold, shares = select_all(noise(scales), DenseConfig(density=density))
    assert 1 / 1.25 < np.mean(shares) < 1.25
    assert 1 / 1.25 < np.mean(shares[STEPS // 2 :]) < 1.25, "and not only at first"
    assert threshold.estimates < STEPS / 8, "a selection in few steps"
    assert max(shares) < 1.26, "12.5 elements are 13"


def test_a_layer_of_few_elements_sends_its_share_too() -> None:
    for size in (1, 30, 150):
        _, shares = select_all(noise(SCALES["as_1_over_t"], size), DenseConfig())
        assert 1 / 1.25 < np.mean(shares) < 1.25


def test_gradients_that_fit_no_threshold_are_not_estimated_in_every_step() -> None:
    signs = (torch.sign(grads_n) for grads_n in noise([1.0] * STEPS))
    threshold, shares = select_all(signs, DenseConfig())
    assert 1 / 1.25 < np.mean(shares[STEPS // 4 :]) < 1.25, "of one size, but by what is held back they differ"
    assert threshold.estimates < STEPS / 8
    alike, shares = select_all([torch.ones(1_000)] * STEPS, DenseConfig())
    assert alike.estimates < STEPS * 8 / 50 + 8, "as soon as it may be, no sooner"
    assert max(shares) <= 1.3, "the first of them"
    zeros, sent = select_all([torch.zeros(1_000)] * STEPS, DenseConfig())
    assert not any(sent)
    assert zeros.estimates < STEPS / 50 + 8, "nothing can be sent sooner"


def test_estimates_come_at_their_time_and_sooner_where_the_share_is_off() -> None:
    config, layer, grads = DenseConfig(density=0.1, reestimate_every=8), LayerConfig(0.1), torch.arange(1.0, 101.0)
    threshold, scratch, estimated_at = Threshold(), Scratch(100, torch.device("cpu")), []

    def chosen(factor: float) -> int:
        estimates = threshold.estimates
        count = len(threshold.select(factor * grads, scratch, layer, config))
        if threshold.estimates > estimates:
            estimated_at.append(threshold.uses - 1)
        return count

    assert ([chosen(1) for _ in range(20)], threshold.value) == ([10] * 20, 91.0)
    assert estimated_at == [0, 1, 2, 4, 8, 16]
    assert chosen(1.05) == 13, "54 of 50 pass since the estimate, which is not yet off; 12.5 is the most that is sent"
    assert threshold.value == pytest.approx(91 * math.exp(0.1 * 0.3)), "but followed"
    assert chosen(3) == 10, "69 would pass"
    assert estimated_at[-1] == 21
    assert [chosen(0.1), chosen(0.1)] == [10, 10], "nothing would pass"
    assert [chosen(0), chosen(0), chosen(0)] == [0] * 3, "zeros are never sent"


def test_a_sample_is_as_good_as_all_and_nan_is_sent() -> None:
    grads = torch.from_numpy(np.random.default_rng(2).standard_normal(1 << 20).astype(np.float32))
    grads[12345] = float("nan")
    chosen = Threshold().select(grads, Scratch(len(grads), grads.device), LayerConfig(0.01), DenseConfig())
    assert 12345 in chosen
    assert len(chosen) == pytest.approx(0.01 * len(grads), rel=0.12), "3 sigma of 655 of 65,536"


@pytest.mark.parametrize("error_feedback", [True, False])
def test_a_step_that_is_not_finished_did_not_happen(error_feedback: bool) -> None:
    """Of any kind: also one with a NaN, and one whose gradients are too large together with what is held back."""
    rng = np.random.default_rng(3)
    config = DenseConfig(density=0.1, error_feedback=error_feedback, layers={"top.*": LayerConfig(1.0)})
    group, other = Ranks(1, config), Ranks(1, config)
    for step in range(6):
        grads = gradients(rng, 9)
        for value in (float("nan"), float("inf"), -float("inf"), 1.0):
            started = group.ranks[0].start({**gradients(rng, 9), "bottom.bias": torch.tensor([value])})
            assert started.finite == math.isfinite(value)
            assert (started.packed is None) == (not started.finite)
        group.step([{name: grad.clone() for name, grad in grads.items()}])
        other.step([grads])
        mine, theirs = (each.ranks[0].state_dict() for each in (group, other))
        assert mine["thresholds"] == theirs["thresholds"]
        assert mine["step"] == theirs["step"] == step + 1
        assert all(torch.equal(mine["residuals"][name], held) for name, held in theirs["residuals"].items())


def test_numbers_too_large_to_add_up_are_finite_and_a_state_with_nan_is_refused() -> None:
    assert all_finite(torch.full((1000,), 3e38))
    assert not all_finite(torch.tensor([3e38, 3e38, float("inf")]))
    group = Ranks(1, DenseConfig())
    state = group.ranks[0].state_dict()
    state["residuals"]["top.bias"][2] = float("nan")
    with pytest.raises(InvalidArgument, match=r"top\.bias: the state holds back NaN"):
        group.ranks[0].load_state_dict(state)


def test_the_factor_of_what_was_sent() -> None:
    before = DenseStats(steps=1, dense_bytes=400.0, all_reduce_bytes=400.0)
    after = DenseStats(
        steps=3, dense_bytes=1200.0, all_reduce_bytes=400.0, value_bytes=4.0, position_bytes=3, header_bytes=1
    )
    assert (before.factor, after.since(before).factor, DenseStats().factor) == (1.0, 100.0, 1.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"density": 0.0},
        {"density": 1.5},
        {"values": "int8"},
        {"reestimate_every": 0},
        {"sample_size": 0},
        {"warm_up_steps": -1},
        {"max_overshoot": 0.5},
        {"layers": {"*": LayerConfig(0.1, every=2)}, "error_feedback": False},
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        DenseConfig(**settings)


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    with pytest.raises(ConfigError, match=r"\['tower.*'\] match none"):
        Ranks(1, DenseConfig(layers={"tower.*": LayerConfig(1.0)}))
    with pytest.raises(ConfigError, match="every=0"):
        LayerConfig(0.1, every=0)
    group = Ranks(1, DenseConfig(density=0.1))
    group.step([gradients(np.random.default_rng(0), 100)])
    state, held = group.ranks[0].state_dict(), group.residual("top.weight").clone()
    small = Compressor({"other": torch.zeros(3)}, group.config)
    with pytest.raises(InvalidArgument, match="other"):
        small.load_state_dict(state)
    with pytest.raises(InvalidArgument, match="error_feedback"):
        Ranks(1, DenseConfig(error_feedback=False)).ranks[0].load_state_dict(state)
    with pytest.raises(InvalidArgument, match="format 7"):
        group.ranks[0].load_state_dict({**state, "format": 7})
    residuals = {**state["residuals"], "top.weight": torch.zeros(20), "bottom.bias": torch.zeros(2)}
    with pytest.raises(LengthMismatch, match=r"bottom\.bias: 2 residuals"):
        group.ranks[0].load_state_dict({**state, "residuals": residuals})
    assert torch.equal(group.residual("top.weight"), held)
