"""The compressor as a communication hook of DistributedDataParallel.

DDP calls the hook bucket by bucket while backward runs. Here all buckets wait for the last one and travel together: one
header, one exchange of sizes and one of payloads a step. What is left after 100x is too small to be worth overlapping,
and exchanges that start on one thread in one order cannot cross each other (in a future's callback on gloo they could).
The order is the model's, not that of the buckets, which DDP rebuilds after the first step: so a restored trainer adds
in the same order too. Layers that are sent whole lose their overlap with backward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ps.errors import DtypeMismatch, InvalidArgument
from ps.nn.dense.compressor import Compressor, Outgoing, all_finite, split_into
from ps.nn.dense.config import DenseConfig
from ps.nn.dense.exchange import SIZE_BYTES, agree, gather
from ps.nn.dense.stats import DenseStats

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket


class DctHook:
    """The state of a rank's compression, which `register` returns. Save it with the trainer's checkpoint, on each rank.

    The gradient that the optimizer sees is the mean of what the ranks sent, zero elsewhere. SGD comes to the same sum
    of gradients. Momentum and Adam's averages receive what was held back late and at once, and decay in between.
    Adagrad takes the square of the sum: larger than the sum of squares, so its rate falls faster. Weight decay is not
    touched. It does not work with scaled losses (`GradScaler`): residuals would be in units of an older scale.

    A step in which a gradient of any rank is NaN or infinite runs as plain DDP does: the mean of all gradients reaches
    all ranks whole, so each sees that it is not finite, and may skip it. What is held back is not touched, on any rank.
    """

    def __init__(self, model: DistributedDataParallel, config: DenseConfig) -> None:
        self._parameters = {name: p for name, p in _parameters(model)}
        self._group = model.process_group
        error = _unserved(model, self._parameters)
        agree(
            error or (repr(config), [(name, tuple(p.shape)) for name, p in self._parameters.items()]),
            self._group,
            error,
        )
        self._names = {id(parameter): name for name, parameter in self._parameters.items()}
        self._rank, self._ranks = dist.get_rank(self._group), dist.get_world_size(self._group)
        self._all_reduce_element = 4 * 2 * (self._ranks - 1) / self._ranks  # bytes that a rank sends for it
        self._size = sum(parameter.numel() for parameter in self._parameters.values())
        self._compressor = Compressor({name: p.detach() for name, p in self._parameters.items()}, config)
        self._stats = DenseStats()
        self._waiting: list[tuple[GradBucket, torch.futures.Future[torch.Tensor]]] = []

    def on_bucket(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        """Keeps DDP's bucket until the last one has come, then exchanges all; DDP calls it."""
        if bucket.index() == 0:
            self._waiting.clear()  # a backward that failed may have left some
        device = bucket.buffer().device
        future = torch.futures.Future[torch.Tensor](devices=[] if device.type == "cpu" else [device])
        self._waiting.append((bucket, future))
        if bucket.is_last():
            waiting, self._waiting = self._waiting, []
            self._exchange([bucket for bucket, _ in waiting])
            for ready, its_future in waiting:
                its_future.set_result(ready.buffer())
        return future

    def stats(self) -> DenseStats:
        """Returns a copy of what was counted since `register`, also over restores."""
        estimates = sum(layer.threshold.estimates for layer in self._compressor.layers.values())
        return DenseStats(**{**vars(self._stats), "threshold_estimates": estimates})

    def flush(self) -> None:
        """Puts the mean of what all ranks hold back into the parameters' `grad`; the caller's optimizer applies it.

        Every rank must call it, between steps: at the end of training, or before the number of ranks changes.
        """
        held = self._compressor.residuals()
        for name, parameter in self._parameters.items():
            parameter.grad = torch.zeros_like(parameter)
            if name in held:
                dist.all_reduce(held[name], group=self._group)
                parameter.grad += (held[name] / self._ranks).view_as(parameter)
                held[name].zero_()

    def state_dict(self) -> dict[str, Any]:
        """Returns this rank's residuals, thresholds, step and counters; each rank saves its own."""
        state = self._compressor.state_dict()
        return {**state, "rank": self._rank, "ranks": self._ranks, "stats": dict(vars(self._stats))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what this rank saved; every rank must call it. Training then goes on bit by bit as it would have.

        Raises `InvalidArgument` for another rank's state, another number of ranks or another model; see `Compressor`.
        """
        error: InvalidArgument | None = None
        try:
            self._load(state)
        except InvalidArgument as caught:
            error = caught
        agree(("loaded, step", self._compressor.step) if error is None else error, self._group, error)

    def _load(self, state: Mapping[str, Any]) -> None:
        saved = (state.get("rank"), state.get("ranks"))
        if saved != (self._rank, self._ranks):
            raise InvalidArgument(
                f"the dense state of rank {saved[0]} of {saved[1]}, but this is rank {self._rank} of {self._ranks}: "
                "each rank loads its own; before the number of ranks changes, call flush() and save no state"
            )
        self._compressor.load_state_dict(state)
        self._stats = DenseStats(**state["stats"])

    def _exchange(self, buckets: list[GradBucket]) -> None:
        found = {
            self._names[id(parameter)]: grad.view(-1)
            for bucket in buckets
            for parameter, grad in zip(bucket.parameters(), bucket.gradients(), strict=True)
        }
        grads = {name: found[name] for name in self._parameters}
        outgoing = self._compressor.start(grads)
        if outgoing.whole:
            dist.all_reduce(outgoing.whole_buffer, group=self._group)
        in_parts = len(outgoing.whole) < len(self._parameters)
        payloads: list[torch.Tensor] | None = []
        if in_parts:
            payload = outgoing.packed.payload if outgoing.packed else torch.empty(0, dtype=torch.uint8)
            payloads = gather(payload.to(outgoing.whole_buffer.device), not outgoing.finite, self._group)
        self._count(outgoing, in_parts, payloads)
        if payloads is None or not all_finite(outgoing.whole_buffer):  # the same on all ranks
            self._exchange_all(grads)
        else:
            self._compressor.finish(grads, outgoing, outgoing.whole_buffer, payloads, self._ranks)

    def _exchange_all(self, grads: Mapping[str, torch.Tensor]) -> None:
        """Exchanges all gradients, as DDP does without the hook."""
        flat = torch.cat(list(grads.values())) / self._ranks  # before, as DDP does: a sum may be too large, not a mean
        dist.all_reduce(flat, group=self._group)
        split_into(flat, list(grads), grads)
        self._stats.steps_not_finite += 1
        self._stats.elements_sent += self._size
        self._stats.all_reduce_bytes += self._all_reduce_element * self._size

    def _count(self, outgoing: Outgoing, in_parts: bool, payloads: list[torch.Tensor] | None) -> None:
        stats, others, packed = self._stats, self._ranks - 1, outgoing.packed
        stats.steps += 1
        stats.elements += self._size
        stats.dense_bytes += self._all_reduce_element * self._size
        stats.all_reduce_bytes += self._all_reduce_element * len(outgoing.whole_buffer)
        stats.elements_sent += len(outgoing.whole_buffer)
        if in_parts:
            stats.header_bytes += others * SIZE_BYTES
        if packed and payloads:
            padded = max(map(len, payloads))
            stats.position_bytes += others * packed.position_bytes
            stats.value_bytes += others * packed.value_bytes
            stats.header_bytes += others * (padded - packed.position_bytes - packed.value_bytes)
            stats.elements_sent += len(packed.values_k)


def register(model: DistributedDataParallel, config: DenseConfig | None = None) -> DctHook:
    """Compresses the gradient exchange of a DDP model from its next step on. Every rank must call it, before training.

    Raises `ConfigError` (a pattern without a parameter), `DtypeMismatch` (parameters other than float32),
    `InvalidArgument` (ranks whose settings differ; a feature of DDP that does not work with compression).
    """
    hook = DctHook(model, config or DenseConfig())
    # DDP would compare a function's annotations as objects; a lambda has none.
    model.register_comm_hook(hook, lambda state, bucket: state.on_bucket(bucket))
    return hook


def _parameters(model: DistributedDataParallel) -> list[tuple[str, torch.nn.Parameter]]:
    """Returns the parameters whose gradients DDP exchanges."""
    ignored = model.parameters_to_ignore
    return [(name, p) for name, p in model.module.named_parameters() if p.requires_grad and name not in ignored]


def _unserved(model: DistributedDataParallel, parameters: Mapping[str, torch.nn.Parameter]) -> InvalidArgument | None:
    """Returns which features of this DDP model compression does not support."""
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            return DtypeMismatch(
                f"{name} is {parameter.dtype}: the hook takes float32 parameters, which autocast keeps"
            )
        if not parameter.is_contiguous():
            return InvalidArgument(f"{name} has strides {parameter.stride()}: make it contiguous before DDP wraps it")
    if model.find_unused_parameters and not model.static_graph:
        return InvalidArgument(
            "DDP(find_unused_parameters=True) takes no gradient for a parameter that a step did not use, so what was "
            "held back and sent then would be lost: use find_unused_parameters=False or static_graph=True"
        )
    return None
