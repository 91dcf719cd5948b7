"""TensorTrainEmbeddingBag against torch: its results are those of an EmbeddingBag on the whole table, its updates those
of torch's optimizers on the cores."""

from __future__ import annotations

import copy
import io
import os
import pickle

import pytest
import torch
from hypothesis import given
from torch import nn

import ps
from ps.errors import DtypeMismatch, InvalidArgument, LengthMismatch
from ps.nn import TensorTrainEmbeddingBag
from ps.nn.tensor_train import on_numba as on_cpu
from ps.tensor_train.rates import core_optimizers
from tests.unit.worker.tt_reference import OPTIMIZERS, cases, cores_of, enlarge, expected, full_table

close = torch.testing.assert_close
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def trained(module, batch, steps=3):
    for step in range(steps):
        torch.manual_seed(step)
        module(*batch).backward(torch.randn(len(batch[1]), module.embedding_dim))


BATCH = torch.tensor([3, 99, 3, 0, 17, 42, 42]), torch.tensor([0, 2, 2, 5])


@given(cases())
def test_bags_and_gradients_are_those_of_the_whole_table(case):
    module = case.module(sparse=False)
    if case.bags.weights is not None:
        case.bags.weights.requires_grad_()
    bags = copy.deepcopy(case.bags)
    out = case(module)
    out.backward(case.out_grads)
    cores = [core.double().requires_grad_() for core in cores_of(module)]
    out_again = expected(module, cores, bags)
    out_again.backward(case.out_grads.double())
    close(out.double(), out_again, **TOLERANCE)
    for k, core in enumerate(cores):
        close(getattr(module, f"core{k}").grad.double(), core.grad, **TOLERANCE)
    if bags.weights is not None and len(bags.weights):
        close(case.bags.weights.grad, bags.weights.grad, **TOLERANCE)


@given(cases())
def test_full_weight_is_the_table(case):
    module = case.module(sparse=False)
    close(module.full_weight(), full_table(module.shape, cores_of(module))[: module.num_embeddings], **TOLERANCE)


def torch_optimizer(rule, core):
    if isinstance(rule, ps.SGD):
        return torch.optim.SGD([core], lr=rule.lr)
    return torch.optim.Adagrad([core], lr=rule.lr, eps=rule.eps, initial_accumulator_value=rule.initial_accumulator)


@pytest.mark.parametrize("kind", ["sgd", "adagrad"])
@given(case=cases())
def test_fused_updates_are_those_of_torch_optimizers(kind, case):
    """A slice that no row has, has a gradient of 0 there, which moves nothing in either."""
    module = case.module(optimizer=OPTIMIZERS[kind])
    sizes = module.shape.slice_sizes
    cores = [core[:, :size].clone().requires_grad_() for core, size in zip(cores_of(module), sizes, strict=True)]
    rules = core_optimizers(OPTIMIZERS[kind], module.shape)
    optimizers = [torch_optimizer(rule, core) for rule, core in zip(rules, cores, strict=True)]
    for _ in range(3):
        case(module).backward(case.out_grads / 10)
        for optimizer in optimizers:
            optimizer.zero_grad()
        expected(module, cores, case.bags).backward(case.out_grads / 10)
        for optimizer in optimizers:
            optimizer.step()
    for core, ours, size in zip(cores, cores_of(module), sizes, strict=True):
        close(ours[:, :size], core.detach(), **TOLERANCE)


@given(cases())
def test_row_wise_adagrad_has_one_number_a_slice(case):
    module, twin = case.module(optimizer=OPTIMIZERS["rowwise_adagrad"]), case.module(sparse=False)
    case(module).backward(case.out_grads)
    case(twin).backward(case.out_grads)
    rules = core_optimizers(OPTIMIZERS["rowwise_adagrad"], module.shape)
    sizes = module.shape.slice_sizes
    for core, before, size, rule in zip(cores_of(module), twin.parameters(), sizes, rules, strict=True):
        h = rule.initial_accumulator + before.grad.square().mean(dim=1, keepdim=True)
        close(core[:, size : size + 1], h, **TOLERANCE)
        close(core[:, :size], before.detach() - rule.lr / (h.sqrt() + rule.eps) * before.grad, **TOLERANCE)


def test_a_trained_dense_table_and_the_cores_learn_alike():
    """A planted table of rank 2: the cores must find it, with a fifth of the numbers of the dense one."""
    planted = TensorTrainEmbeddingBag(1000, 8, [2, 2], seed=1).eval()
    enlarge(planted)
    torch.manual_seed(0)
    batches = [torch.randint(0, 1000, (256, 3)) for _ in range(60)]

    def losses(module, step):
        found = []
        for _ in range(4):
            for batch in batches:
                loss = (module(batch) - planted(batch)).square().mean()
                loss.backward()
                step()
            found.append(float(loss.detach()))
        return found

    dense = nn.EmbeddingBag(1000, 8, mode="sum")
    optimizer = torch.optim.Adagrad(dense.parameters(), lr=0.3)

    def step():
        optimizer.step()
        optimizer.zero_grad()

    cores = TensorTrainEmbeddingBag(1000, 8, [4, 4], optimizer=ps.Adagrad(lr=0.3), seed=2)
    enlarge(cores)
    start = float(planted(batches[-1]).square().mean())
    ours, theirs = losses(cores, lambda: None), losses(dense, step)
    assert cores.shape.parameters * 5 < 1000 * 8
    assert ours[-1] < 0.1 * start
    assert ours[-1] < 2 * theirs[-1]


def test_threads_change_no_byte(monkeypatch):
    """Large enough to be shared."""
    made = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        module = TensorTrainEmbeddingBag(100_000, 16, [4, 4], optimizer=OPTIMIZERS["adagrad"])
        batch = torch.arange(0, 50_000, 7) * 2 % 99_991, torch.arange(0, 7000, 7)
        trained(module, batch)
        made.append([core.clone() for core in cores_of(module)])
    assert all(torch.equal(one, two) for one, two in zip(*made, strict=True))


def test_a_second_thread_survives_no_fork_and_is_made_anew():
    on_cpu._second_thread(os.getpid())
    assert on_cpu._second_thread(os.getpid()) is on_cpu._second_thread(os.getpid())
    assert on_cpu._second_thread(-1) is not on_cpu._second_thread(os.getpid())


def test_shared_work_raises_what_either_half_raised(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def fail():
        raise ValueError("half")

    for tasks in ([fail, int], [int, fail]):
        with pytest.raises(ValueError, match="half"):
            on_cpu.share(tasks)


def test_eval_mode_and_no_grad_change_nothing():
    module = TensorTrainEmbeddingBag(100, 4, [2, 2], use_cache=True, cache_size=5)
    before = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        module(*BATCH)
    assert not module.eval()(*BATCH).requires_grad
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name != "_extra_state")
    assert module.lookups == 0
    assert not len(module._frequencies.rank(module.cache_ids[:0]))


def test_without_bags_of_offsets_every_row_of_indices_is_one():
    module = TensorTrainEmbeddingBag(100, 4, [2])
    table = module.full_weight()
    index = torch.tensor([[1, 2], [2, 99]], dtype=torch.int32)
    close(module(index), table[[1, 2]] + table[[2, 99]])
    flat = module(index.flatten(), torch.tensor([0, 2], dtype=torch.int32))
    assert torch.equal(flat, module(index))


def test_the_last_offset_may_be_the_number_of_indices():
    """As FBTT has it."""
    module = TensorTrainEmbeddingBag(100, 4, [2], include_last_offset=True)
    without = TensorTrainEmbeddingBag(100, 4, [2])
    indices, offsets = BATCH
    found = module(indices, torch.cat([offsets, torch.tensor([len(indices)])]))
    assert torch.equal(found, without(indices, offsets))


@pytest.mark.parametrize("sparse", [True, False])
def test_no_indices_make_bags_of_zeros_that_can_be_trained(sparse):
    module = TensorTrainEmbeddingBag(100, 4, [2], sparse=sparse)
    before = module.full_weight()
    out = module(torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0]))
    assert torch.equal(out, torch.zeros(2, 4))
    out.sum().backward()
    assert torch.equal(module.full_weight(), before)
    assert module(torch.zeros((0, 3), dtype=torch.int64)).shape == (0, 4)


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS.values(), None], ids=[*OPTIMIZERS, "torch"])
@pytest.mark.parametrize("through", ["file", "deepcopy", "assign", "pickle"])
def test_a_saved_module_goes_on_to_the_same_bytes(optimizer, through):
    arguments = {"tt_ranks": [3, 2], "use_cache": True, "cache_size": 2, "refresh_every": 2}
    arguments |= {"optimizer": optimizer, "sparse": optimizer is not None}
    module = TensorTrainEmbeddingBag(100, 6, **arguments)
    enlarge(module)
    trained(module, BATCH)
    module.cache_populate()
    trained(module, (torch.tensor([5, 5, 5, 6, 6, 6, 3]), torch.tensor([0, 3])))
    assert module.fold_error is not None
    if through in ("deepcopy", "pickle"):
        again = copy.deepcopy(module) if through == "deepcopy" else pickle.loads(pickle.dumps(module))
    else:
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        again = TensorTrainEmbeddingBag(100, 6, **arguments, seed=3)
        again.load_state_dict(torch.load(file, weights_only=True), assign=through == "assign")
    for _ in range(2):
        assert torch.equal(again.full_weight(), module.full_weight())
        assert again.fold_error == module.fold_error
        assert torch.equal(again.cache_ids, module.cache_ids)
        assert again.lookups == module.lookups
        for side in (module, again):
            trained(side, (torch.tensor([5, 7, 7, 7, 8, 8, 3]), torch.tensor([0, 3])))
            side.cache_populate()


def test_a_copy_learns_alone():
    module = TensorTrainEmbeddingBag(100, 6, [3, 2])
    twin = copy.deepcopy(module)
    before = module.full_weight()
    trained(twin, BATCH)
    assert torch.equal(module.full_weight(), before)
    assert not torch.equal(twin.full_weight(), before)


def test_saving_does_not_change_what_comes():
    """Uses that are noted but not added up yet stay so."""
    module = TensorTrainEmbeddingBag(100, 6, [3, 2], use_cache=True, cache_size=3)
    trained(module, BATCH)
    before = module._frequencies.state()
    module.state_dict()
    assert len(before["noted_ids"]) == 15
    assert torch.equal(module._frequencies.state()["noted_ids"], before["noted_ids"])


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_any_torch_optimizer_trains_cores_and_cache(name):
    module = TensorTrainEmbeddingBag(100, 6, [3, 2], sparse=False, use_cache=True, cache_size=2)
    trained(module, BATCH, steps=1)
    module.cache_populate()
    module.zero_grad()
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name](module.parameters(), lr=0.01)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    trained(module, BATCH, steps=1)
    optimizer.step()
    assert len(before) == 4
    assert not any(torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True))


def test_torchs_adagrad_in_groups_trains_as_the_fused_one_does():
    arguments = {"tt_ranks": [16, 8], "use_cache": True, "cache_size": 2}
    fused = TensorTrainEmbeddingBag(100, 6, optimizer=ps.Adagrad(lr=0.05), **arguments)
    module = TensorTrainEmbeddingBag(100, 6, sparse=False, **arguments)
    optimizer = torch.optim.Adagrad(module.parameter_groups(0.05))
    assert len(optimizer.param_groups) == 4
    for step in range(3):
        for bag in (fused, module):
            bag(*BATCH).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        close(module.full_weight(), fused.full_weight(), **TOLERANCE)
        if step == 1:
            fused.cache_populate()
            module.cache_populate()
    with pytest.raises(InvalidArgument, match="sparse=True"):
        fused.parameter_groups(0.05)


def test_the_learning_rate_can_be_changed():
    module = TensorTrainEmbeddingBag(100, 6, [3, 2], optimizer=ps.Adagrad(lr=0.1, eps=1e-3))
    module.set_learning_rate(0.05)
    assert module.optimizer == ps.Adagrad(lr=0.05, eps=1e-3)
    twin = TensorTrainEmbeddingBag(100, 6, [3, 2], optimizer=ps.Adagrad(lr=0.05, eps=1e-3))
    trained(module, BATCH)
    trained(twin, BATCH)
    assert torch.equal(module.full_weight(), twin.full_weight())
    with pytest.raises(ps.ConfigError, match="-1"):
        module.set_learning_rate(-1)
    with pytest.raises(InvalidArgument, match="sparse=False"):
        TensorTrainEmbeddingBag(100, 6, [3, 2], sparse=False).set_learning_rate(0.1)


def test_what_is_printed_says_how_the_table_is_cut():
    module = TensorTrainEmbeddingBag(1_000_003, 16, [8, 8], tt_p_shapes=[100, 100, 101], tt_q_shapes=[2, 2, 4])
    parameters = 100 * 2 * 8 + 100 * 8 * 2 * 8 + 101 * 8 * 4
    for part in ("p=(100, 100, 101)", "q=(2, 2, 4)", "ranks=(8, 8)", "padding=9997", f"parameters={parameters}"):
        assert part in repr(module)
    assert module.compression == 1_000_003 * 16 / parameters
    cached = TensorTrainEmbeddingBag(1000, 16, [8], use_cache=True, cache_size=100)
    assert cached.compression == 1000 * 16 / (cached.shape.parameters + 1600)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tt_ranks": []}, r"tt_ranks \[\]: 2 to 4 cores"),
        ({"tt_ranks": [2, 2, 2, 2]}, r"tt_ranks \[2, 2, 2, 2\]"),
        ({"tt_ranks": [0]}, r"must be 1 or more"),
        ({"tt_p_shapes": [4, 4]}, "16 rows, fewer than the 100"),
        ({"tt_q_shapes": [2, 2]}, "rows of 4 floats.*6"),
        ({"num_embeddings": 0}, "0 rows x 6"),
        ({"mode": "max"}, "mode 'max'"),
        ({"initializer": "zeros"}, "initializer 'zeros'"),
        ({"seed": -1}, "seed -1"),
        ({"optimizer": ps.Adam()}, "ps.Adagrad, ps.RowwiseAdagrad or ps.SGD"),
        ({"optimizer": ps.SGD(), "sparse": False}, "would not be used"),
        ({"use_cache": True}, "cache_size of 0"),
        ({"cache_size": 3}, "use_cache=True"),
        ({"refresh_every": 3}, "use_cache=True"),
        ({"use_cache": True, "cache_size": 3, "refresh_every": -1}, "refresh_every -1"),
        ({"fold_tolerance": float("nan")}, "fold_tolerance nan"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        TensorTrainEmbeddingBag(**{"num_embeddings": 100, "embedding_dim": 6, "tt_ranks": [2], **arguments})


I = torch.tensor([1, 2, 3])  # noqa: E741
O = torch.tensor([0, 1])  # noqa: E741
W = torch.ones(3)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((torch.tensor([[1, 100]]),), InvalidArgument, r"index 100 is not in \[0, 100\)"),
        ((torch.tensor([[1, -7]]),), InvalidArgument, r"index -7 is not in"),
        ((torch.tensor([[2**40]]),), InvalidArgument, str(2**40)),
        ((torch.tensor([[1.0]]),), DtypeMismatch, "float32"),
        ((I,), InvalidArgument, "without offsets"),
        ((torch.tensor([[1]]), O), InvalidArgument, "one dimension"),
        ((I, torch.tensor([0.0])), DtypeMismatch, "float32"),
        ((I, torch.tensor([1, 2])), InvalidArgument, r"offsets\[0\] is 1"),
        ((I, torch.tensor([0, 4])), InvalidArgument, r"offsets\[1\] is 4, but there are only 3 ids"),
        ((I, torch.tensor([0, 3, 1, 3])), InvalidArgument, "never decrease"),
        ((I, O[:0]), InvalidArgument, "no offsets for 3 ids"),
        ((I, O, torch.ones(2)), LengthMismatch, r"\(2,\)"),
    ],
)
def test_batches_that_do_not_fit(batch, error, message):
    module = TensorTrainEmbeddingBag(100, 6, [2])
    with pytest.raises(error, match=message):
        module(*batch)


def test_batches_that_do_not_fit_these_arguments():
    with pytest.raises(InvalidArgument, match="'mean'"):
        TensorTrainEmbeddingBag(100, 6, [2], mode="mean")(I, O, W)
    module = TensorTrainEmbeddingBag(100, 6, [2], include_last_offset=True)
    with pytest.raises(InvalidArgument, match="it must be 3"):
        module(I, O)
    with pytest.raises(InvalidArgument, match="no offsets"):
        module(I, O[:0])


def test_other_types_and_devices_are_refused():
    module = TensorTrainEmbeddingBag(100, 6, [2])
    with pytest.raises(InvalidArgument, match="float64"):
        module.double()
    assert module.core0.dtype == torch.float32
    with pytest.raises(InvalidArgument, match="meta"):
        module(torch.tensor([[1]], device="meta"))
