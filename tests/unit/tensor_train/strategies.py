"""What the tests of tensor-train tables draw and compare with: small shapes, random cores, the whole table by torch."""

from __future__ import annotations

import math

import hypothesis
import numpy as np
import torch
from hypothesis import strategies as st

from ps.config import SGD
from ps.kernels.updates.optim import update_rule
from ps.tensor_train.cores import Cores
from ps.tensor_train.shape import TTShape

seeds = st.integers(0, 2**32)


@st.composite
def shapes(draw):
    """Small ones, sizes of 1 among them."""
    number = draw(st.integers(2, 4))
    p, q, ranks = (
        tuple(draw(st.lists(st.integers(1, largest), min_size=size, max_size=size)))
        for largest, size in ((5, number), (4, number), (6, number - 1))
    )
    return TTShape(draw(st.integers(1, math.prod(p))), p, q, ranks)


def given(*strategies):
    """hypothesis.given without a deadline: the first example of all may have to compile a kernel."""
    return lambda test: hypothesis.settings(deadline=None)(hypothesis.given(*strategies)(test))


def random_arrays(shape, seed, kind=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size).astype(kind) for size in shape.cores]


def cores_of(shape, arrays, optimizer=None):
    rules = [update_rule(optimizer or SGD(lr=0.1), size) for size in shape.slice_sizes]
    return Cores(shape, arrays, rules)


def random_cores(shape, seed, kind=np.float64, optimizer=None):
    return cores_of(shape, random_arrays(shape, seed, kind), optimizer)


def rows_of(cores, index_N, share=None):
    """What `lookup` writes, over an output that was full of something else."""
    out_ND = np.full((len(index_N), cores.shape.dim), np.nan, cores.arrays[0].dtype)
    cores.lookup(index_N, out_ND, *([share] if share else []))
    return out_ND


def whole_table(tensors):
    """[product of p, D], by torch, from cores [p, R, q, S]: knows nothing of digits."""
    table_NDS = torch.ones(1, 1, 1, dtype=tensors[0].dtype)
    for core in tensors:
        product = torch.einsum("ndr,prqs->npdqs", table_NDS, core)
        table_NDS = product.reshape(len(table_NDS) * len(core), -1, core.shape[3])
    return table_NDS[:, :, 0]


def autograd(arrays, index_N, grads_ND):
    """The gradients of the cores, through the whole table."""
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    rows_ND = whole_table(tensors).index_select(0, torch.tensor(index_N))
    (rows_ND * torch.tensor(grads_ND)).sum().backward()
    return [tensor.grad.numpy() for tensor in tensors]


def states_of(cores):
    """The bytes of every slice, with the optimizer's state, by core."""
    return [[row_W.tobytes() for row_W in rows_PW] for rows_PW in cores._rows]
