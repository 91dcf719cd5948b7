"""Reads and trains tensor-train rows, against the same in torch and against dense rows, all on two threads; then
measures whole training steps (`benchmarks.tensor_train.step`).

The cores stand for `tt_rows` rows; the dense table beside them has only `rows`, so that it fits. Forward is a lookup;
backward is the gradients of the cores and a step of SGD. Ours is a lookup and then `Cores.apply`, which multiplies once
more, as a shard does, because it keeps nothing from pull to push; torch keeps everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import numpy as np
import torch

from benchmarks.harness.data import batches, generator, gradients
from benchmarks.harness.measure import Contender, Rounds, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from benchmarks.tensor_train import step as ttstep
from benchmarks.tensor_train.peers import IN_CACHE, PRODUCTS_IN_CACHE, Forward, TorchCores, einsum, grouped, whole_batch
from ps.arrays import Ids, Rows
from ps.config import SGD
from ps.kernels.rows import rows
from ps.kernels.updates.optim import update_rule
from ps.shard.assistant import Assistant
from ps.tensor_train.contract import Share
from ps.tensor_train.cores import Cores
from ps.tensor_train.initial import default_variance, initial_cores
from ps.tensor_train.shape import TTShape, tt_shape
from ps.wire.allocator import keep_freed_memory

THREADS = 2
ROUNDS = 7
"""The most rounds: torch takes seconds for one."""
QUIET_S = 0.02
"""The pause before each turn: torch's threads spin for some milliseconds after their work, on cores that the next turn
needs."""
OPTIMIZER = SGD(lr=0.01)


def run(report: Report, sizes: Sizes) -> None:
    """Measures cores at several ranks, then the training step."""
    keep_freed_memory()  # as in a shard's process; it speeds torch up too
    torch.set_num_threads(THREADS)
    shapes = {f"rank{rank}": tt_shape(sizes.tt_rows, sizes.dim, rank) for rank in (16, 32, 64)}
    shapes["q2x2x4_rank32"] = tt_shape(sizes.tt_rows, 16, 32, q=(2, 2, 4))
    with closing(Assistant(ThreadPoolExecutor(1))) as assistant:
        for case, shape in shapes.items():
            _case(report, sizes, case, shape, assistant.share)
    ttstep.run(report, sizes)


def _case(report: Report, sizes: Sizes, case: str, shape: TTShape, share: Share) -> None:
    ours = _Ours(shape, sizes.batch, share)
    core_bytes = ours.cores.nbytes
    dense = _Dense(sizes.rows, shape.dim, sizes.batch, share)
    rng = generator()
    index = _after_quiet(batches(rng, np.arange(shape.rows), sizes.batch))
    slots = _after_quiet(batches(rng, np.arange(sizes.rows), sizes.batch))
    peers = _Torch(shape, ours.cores, sizes.batch)

    n_rounds = min(sizes.rounds, ROUNDS)
    forward = interleave(
        n_rounds,
        {
            "ours": Contender(ours.forward, index),
            "dense": Contender(dense.forward, slots),
            **{name: Contender(peer, index) for name, peer in peers.forward.items()},
        },
        warm_up=1,
    )
    both = interleave(
        n_rounds,
        {
            "ours": Contender(ours.forward_backward, index),
            "dense": Contender(dense.forward_backward, slots),
            **{name: Contender(peer, index) for name, peer in peers.forward_backward.items()},
        },
        warm_up=1,
    )
    _tell(report, case, "forward", forward, sizes.batch)
    _tell(report, case, "forward_backward", both, sizes.batch)
    report.add(case, "core_bytes", [float(core_bytes)])
    report.add(case, "buffer_bytes", [float(ours.cores.nbytes - core_bytes)])
    report.add(case, "compression_vs_dense", [shape.compression])


def _tell(report: Report, case: str, what: str, rounds: Rounds, batch: int) -> None:
    report.add(case, f"{what}_rows_per_s", rounds.per_second("ours", batch))
    for name in rounds.seconds:
        if name != "ours":
            report.add(case, f"{what}_vs_{name}", rounds.speed_ratio("ours", name))


def _after_quiet(chosen: Callable[[int], Ids]) -> Callable[[int], Ids]:
    def before(turn: int) -> Ids:
        time.sleep(QUIET_S)
        return chosen(turn)

    return before


class _Ours:
    """Our cores, with the initial values that a table would have."""

    def __init__(self, shape: TTShape, batch: int, share: Share) -> None:
        arrays = initial_cores(shape, default_variance(shape.rows))
        self.cores = Cores(shape, arrays, [update_rule(OPTIMIZER, size) for size in shape.slice_sizes])
        self._share = share
        self._out_ND = np.zeros((batch, shape.dim), np.float32)
        self._grads_ND = gradients(generator(), batch, shape.dim)

    def forward(self, index_N: Ids) -> None:
        self.cores.lookup(index_N, self._out_ND, self._share)

    def forward_backward(self, index_N: Ids) -> None:
        self.forward(index_N)
        self.cores.apply(index_N, self._grads_ND, self._share)


class _Dense:
    """Dense rows; the halves of a batch have a thread each."""

    def __init__(self, n_rows: int, dim: int, batch: int, share: Share) -> None:
        self._rows_SD = np.full((n_rows, dim), 0.1, np.float32)
        self._rule = update_rule(OPTIMIZER, dim)
        self._share = share
        self._out_ND: Rows = np.zeros((batch, dim), np.float32)
        self._grads_ND = gradients(generator(), batch, dim)
        self._halves = (slice(0, batch // 2), slice(batch // 2, batch))

    def forward(self, slots_N: Ids) -> None:
        self._share([partial(rows.gather, self._rows_SD, slots_N[half], self._out_ND[half]) for half in self._halves])

    def forward_backward(self, slots_N: Ids) -> None:
        self.forward(slots_N)
        self._share([partial(self._update, slots_N, half) for half in self._halves])

    def _update(self, slots_N: Ids, half: slice) -> None:
        self._rule.update(self._rows_SD, slots_N[half], self._grads_ND[half], 1)


class _Torch:
    """The versions in torch by name, each a function of row numbers."""

    def __init__(self, shape: TTShape, ours: Cores, batch: int) -> None:
        cores = TorchCores(shape, ours.arrays, OPTIMIZER.lr)
        out_ND = torch.zeros(batch, shape.dim)
        grads_ND = torch.from_numpy(gradients(generator(), batch, shape.dim))

        def reads(forward: Forward, chunk: int) -> Callable[[Ids], None]:
            return lambda index_N: cores.lookup(forward, torch.from_numpy(index_N), chunk, out_ND)

        def trains(forward: Forward, chunk: int) -> Callable[[Ids], None]:
            return lambda index_N: cores.train(forward, torch.from_numpy(index_N), chunk, grads_ND)

        whole = whole_batch(shape, batch)
        self.forward = {
            "einsum": reads(einsum, whole),
            "einsum_in_cache": reads(einsum, IN_CACHE),
            "torch_grouped": reads(partial(grouped, chunk=PRODUCTS_IN_CACHE), batch),
        }
        self.forward_backward = {
            "einsum": trains(einsum, whole),
            "einsum_in_cache": trains(einsum, IN_CACHE),
            "torch_grouped": trains(partial(grouped, chunk=batch), batch),
        }
