"""DLRM against its definition, written with loops."""

from __future__ import annotations

import pytest
import torch

from ps.errors import DimensionMismatch, InvalidArgument
from worker.models.dlrm import DLRM


def seeded(seed: int = 3) -> DLRM:
    return DLRM(5, 4, 6, bottom=(8,), top=(7, 3), generator=torch.Generator().manual_seed(seed))


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 5, generator=generator), torch.randn(9, 4, 6, generator=generator)


def test_the_top_mlp_sees_the_dense_vector_and_every_pair_once():
    model, (dense, embeddings) = seeded(), inputs()
    logits = model(dense, embeddings)
    assert logits.shape == (9,)
    for row in range(9):
        bottom = model.bottom(dense[row])
        vectors = [bottom, *embeddings[row]]
        products = [vectors[i] @ vectors[j] for i in range(5) for j in range(i)]
        expected = model.top(torch.cat([bottom, torch.stack(products)]))
        torch.testing.assert_close(logits[row], expected[0])


def test_one_seed_one_model_whatever_the_global_generator_did():
    first = seeded()
    torch.randn(17)
    second = seeded()
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(next(first.parameters()), next(seeded(4).parameters()))


def test_the_gradient_reaches_every_parameter_and_every_embedding():
    model, (dense, embeddings) = seeded(), inputs()
    embeddings.requires_grad_()
    model(dense, embeddings).pow(2).sum().backward()
    assert embeddings.grad is not None
    assert (embeddings.grad.abs().sum(2) > 0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_state_is_the_weights_alone():
    model, (dense, embeddings) = seeded(1), inputs()
    other = seeded(2)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(dense, embeddings), other(dense, embeddings))
    assert all(name.startswith(("bottom.", "top.")) for name in model.state_dict())


def test_wrong_shapes_are_named():
    dense, embeddings = inputs()
    with pytest.raises(DimensionMismatch, match=r"\[9, 3, 6\].*\[9, 4, 6\]"):
        seeded()(dense, embeddings[:, :3])
    with pytest.raises(InvalidArgument, match="dim=0"):
        DLRM(5, 4, 0)
