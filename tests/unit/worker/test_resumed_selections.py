"""What a collection has learned of its gradients is saved whole: from then on it selects as if it had not stopped."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

import ps
from ps.nn import Bags, EmbeddingBagCollection, Feature, Hold, Sparsifier, Threshold, TopK
from ps.nn.sparsify.residual_arrays import KEY_BYTES
from tests.loopback.tables import summing


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def small(config: TopK | Threshold) -> Sparsifier:
    """One with room for 24 rows of dim 1, so that rows are forgotten and sent for want of room all the time."""
    return Sparsifier(config, 1, max_bytes=24 * (4 + KEY_BYTES))


@pytest.mark.parametrize("config", [TopK(0.1, hold=Hold(0.9, 12)), TopK(0.1, hold=None), Threshold(1e9)])
@pytest.mark.parametrize("seed", range(3))
def test_a_full_sparsifier_decides_by_ids_and_sizes_and_never_by_the_order_of_its_slots(
    config: TopK | Threshold, seed: int
) -> None:
    """Gradients are of few sizes, so that many are alike and must be told apart by something."""
    rng = np.random.default_rng(seed)
    steps = [(rng.permutation(60)[:12], rng.integers(-2, 3, (12, 1)).astype(np.float32)) for _ in range(60)]
    straight, stopped = small(config), small(config)
    for number, step in enumerate(steps):
        if number % 7 == 3:  # again and again: each time its slots come in another order
            state = through_a_file(stopped.state_dict())
            stopped.close()
            stopped = small(config)
            stopped.load_state_dict(state)
        one, other = straight.select(*step), stopped.select(*step)
        for mine, theirs in zip((*one.by_id(), *one.others), (*other.by_id(), *other.others), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        straight.commit(one)
        stopped.commit(other)
    straight.close()
    stopped.close()


def bags(rng: np.random.Generator) -> dict[str, Bags]:
    return {"t": Bags(torch.from_numpy(rng.integers(0, 50, 60)), torch.arange(0, 60, 5))}


def trained(resumed_at: int | None) -> tuple[np.ndarray, dict[str, Any]]:
    """Sixteen steps on bags that the shards sum, with masks and sparsified gradients. At `resumed_at` another
    collection goes on from the state of the first."""

    def begun() -> EmbeddingBagCollection:
        table, feature = summing(), Feature("t", "t", pooled="shard")
        top = TopK(0.3, by="elements", reestimate_every=4, sample=16, hold=None)
        return EmbeddingBagCollection(client, [table], [feature], sparsify=top, mask_sums=top)

    rng = np.random.default_rng(0)
    with ps.connect("inproc:") as client:
        layer = begun()
        for step in range(16):
            if step == resumed_at:
                state = through_a_file(layer.state_dict())
                layer = begun()
                layer.load_state_dict(state)
            (layer(bags(rng)) * torch.from_numpy(rng.standard_normal((12, 1, 4), np.float32))).sum().backward()
            layer.step()
        return np.asarray(client.pull("t", np.arange(50))), layer.get_extra_state()


def test_the_thresholds_of_bags_and_of_masks_go_on() -> None:
    rows, state = trained(None)
    again, state_again = trained(6)
    np.testing.assert_array_equal(rows, again)
    assert repr(state) == repr(state_again)


def test_a_state_of_an_older_version_is_read_and_one_of_a_later_is_refused() -> None:
    with ps.connect("inproc:") as client:
        layer = EmbeddingBagCollection(client, [summing()], sparsify=TopK(0.1))
        held = {"t": {name: value for name, value in layer.get_extra_state()["held"]["t"].items() if name != "bags"}}
        layer.set_extra_state({"t": {**held["t"], "step": 7}})
        assert layer.get_extra_state()["held"]["t"]["step"] == 7
        with pytest.raises(ps.InvalidArgument, match="format 3: this version reads 2"):
            layer.set_extra_state({"format": 3, "held": held, "masks": {}})
        with pytest.raises(ps.InvalidArgument, match=r"the state has masks of tables \['t'\], mask_sums is for \[\]"):
            layer.set_extra_state({"format": 2, "held": held, "masks": {"t": {}}})
