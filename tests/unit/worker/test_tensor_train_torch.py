"""The arithmetic of torch is that of the kernels: on tensors in RAM, and on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ps.nn import TensorTrainEmbeddingBag
from ps.nn.tensor_train import bag as tensor_train
from ps.nn.tensor_train import on_torch as tensor_train_torch
from ps.nn.tensor_train.on_numba import NumbaCores, core_rules
from ps.nn.tensor_train.on_torch import TorchCores
from ps.tensor_train.cores import Cores
from ps.tensor_train.initial import initial_cores
from ps.tensor_train.shape import tt_shape
from tests.devices import DEVICES
from tests.unit.worker.tt_reference import OPTIMIZERS, cores_of, enlarge

close = torch.testing.assert_close
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@st.composite
def batches(draw):
    """A shape, some of its rows, and a number to draw floats by."""
    cores = draw(st.integers(2, 4))
    p, q = ([draw(st.integers(1, most)) for _ in range(cores)] for most in (6, 3))
    ranks = [draw(st.integers(1, 6)) for _ in range(cores - 1)]
    shape = tt_shape(int(torch.tensor(p).prod()), int(torch.tensor(q).prod()), ranks, cores, p, q)
    index = draw(st.lists(st.integers(0, shape.rows - 1), min_size=1, max_size=60, unique=True))
    return shape, torch.tensor(index), draw(st.integers(0, 99))


def both(shape, optimizer, seed, device="cpu"):
    """Kernels and torch, each on cores of its own that are equal, and these cores."""
    rows = Cores(shape, initial_cores(shape, 1.0, "gaussian", seed), core_rules(shape, optimizer)).rows
    held = [torch.from_numpy(part) for part in rows]
    copies = [part.clone().to(device) for part in held]
    return NumbaCores(shape, held, optimizer), TorchCores(shape, copies, optimizer), held, copies


def where(device):
    return "cpu" if device == "torch-cpu" else device


@pytest.fixture(params=[1 << 27, 200], ids=["whole", "blocks"])
def _blocks(request, monkeypatch):
    """So small that a batch is many blocks."""
    monkeypatch.setattr(tensor_train_torch, "BLOCK_FLOATS", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("device", DEVICES)
def test_rows_and_gradients_are_the_kernels(device):
    @given(batches())
    def check(batch):
        shape, index_U, seed = batch
        ours, theirs, *_ = both(shape, None, seed, where(device))
        close(theirs.lookup(index_U.to(where(device))).cpu(), ours.lookup(index_U), **TOLERANCE)
        grads_UD = torch.randn(len(index_U), shape.dim, generator=torch.Generator().manual_seed(seed))
        found = theirs.gradients(index_U.to(where(device)), grads_UD.to(where(device)))
        for one, two in zip(ours.gradients(index_U, grads_UD), found, strict=True):
            assert torch.equal(one[0], two[0].cpu())
            close(one[1], two[1].cpu(), **TOLERANCE)

    check()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_updates_are_the_kernels(kind, device):
    @given(batches())
    def check(batch):
        shape, index_U, seed = batch
        ours, theirs, held, copies = both(shape, OPTIMIZERS[kind], seed, where(device))
        generator = torch.Generator().manual_seed(seed)
        for _ in range(3):
            grads_UD = torch.randn(len(index_U), shape.dim, generator=generator) / 10
            ours.apply(index_U, grads_UD)
            theirs.apply(index_U.to(where(device)), grads_UD.to(where(device)))
        for one, two in zip(held, copies, strict=True):
            close(one, two.cpu(), rtol=1e-3, atol=1e-4)

    check()


@pytest.mark.parametrize("device", DEVICES)
def test_rows_outside_of_the_cores_too(device):
    shape = tt_shape(100, 6, [2, 2])
    for optimizer in OPTIMIZERS.values():
        ours, theirs, *_ = both(shape, optimizer, 0)
        width = 6 + {"sgd": 0, "adagrad": 6, "rowwise_adagrad": 1}[optimizer.kind]
        rows = torch.rand(10, width)
        again = rows.clone().to(where(device))
        slots, grads = torch.tensor([3, 0, 9]), torch.randn(3, 6)
        ours.apply_dense(rows, slots, grads)
        theirs.apply_dense(again, slots.to(where(device)), grads.to(where(device)))
        close(again.cpu(), rows)


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_batch_gives_the_same_bytes(device):
    shape = tt_shape(100_000, 16, [8, 8])
    index_U = torch.randperm(100_000)[:20_000].to(where(device))
    grads_UD = torch.randn(20_000, 16).to(where(device))
    _, cores, *_ = both(shape, None, 0, where(device))
    once, twice = cores.gradients(index_U, grads_UD), cores.gradients(index_U, grads_UD)
    assert all(torch.equal(*pair) for one in zip(once, twice, strict=True) for pair in zip(*one, strict=True))


def test_cores_of_no_optimizer_are_not_updated():
    shape = tt_shape(10, 2, [2], 2)
    for cores in both(shape, None, 0)[:2]:
        with pytest.raises(AssertionError, match="outside"):
            cores.apply(torch.tensor([1]), torch.ones(1, 2))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cores", [2, 3, 4])
@pytest.mark.parametrize("kind", [*OPTIMIZERS, "torch"])
def test_a_module_learns_the_same_on_both(device, cores, kind, monkeypatch):
    """With its cache: ids are as skewed as to make it work."""

    def trained(where):
        torch.manual_seed(3)
        module = TensorTrainEmbeddingBag(
            500,
            8,
            [4] * (cores - 1),
            optimizer=OPTIMIZERS.get(kind),
            sparse=kind != "torch",
            use_cache=True,
            cache_size=20,
            refresh_every=4,
        )
        enlarge(module)
        module.to(where)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1) if kind == "torch" else None
        for _ in range(12):
            index = (500 * torch.rand(40) ** 3).long()
            grads = torch.randn(8, 8) / 10
            module(index.to(where), torch.arange(0, 40, 5).to(where)).backward(grads.to(where))
            if optimizer:
                optimizer.step()
                optimizer.zero_grad()
        return module

    ours = trained("cpu")
    if device == "torch-cpu":
        monkeypatch.setattr(tensor_train, "arithmetic_of", TorchCores)
    theirs = trained(where(device))
    assert isinstance(theirs._table().arithmetic, TorchCores)
    assert sorted(theirs.cache_ids.tolist()) == sorted(ours.cache_ids.tolist())
    close(theirs.full_weight().cpu(), ours.full_weight(), rtol=1e-2, atol=1e-3)
    assert ours.fold_error is not None
    close(theirs.fold_error.mean, ours.fold_error.mean, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_of_nothing_and_one_of_cached_rows_only(device, monkeypatch):
    if device == "torch-cpu":
        monkeypatch.setattr(tensor_train, "arithmetic_of", TorchCores)
    module = TensorTrainEmbeddingBag(500, 8, [4, 4], use_cache=True, cache_size=2, device=where(device))
    empty = torch.zeros((2, 0), dtype=torch.int64, device=where(device))
    module(empty).sum().backward()
    assert torch.equal(module(empty).cpu(), torch.zeros(2, 8))
    cached = torch.tensor([[7, 8]], device=where(device))
    before = module(cached)
    module.cache_populate()
    out = module(cached)
    assert torch.equal(out, before)
    out.sum().backward()
    close(module(cached), before - 2 * 0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is false")
def test_a_module_moves_to_a_gpu_and_back():
    module = TensorTrainEmbeddingBag(500, 8, [4, 4], optimizer=OPTIMIZERS["adagrad"], device="cuda")
    batch = torch.tensor([[1, 2, 499]])
    module(batch.cuda()).sum().backward()
    before = module(batch.cuda()).cpu()
    close(module.cpu()(batch), before)
    assert all(core.device.type == "cpu" for core in cores_of(module))
