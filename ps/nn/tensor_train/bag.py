"""TensorTrainEmbeddingBag: torch.nn.EmbeddingBag with a table that is computed from small cores, without the service.

TT-Rec (Yin et al., MLSys 2021), used as FBTT-Embedding's TTEmbeddingBag is. A CPU runs the kernels of the service's
tensor-train tier; other devices run torch's matrix products, which have been run on CPU tensors only so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from ps.config import Adagrad, CoreOptimizer
from ps.errors import InvalidArgument
from ps.nn.tensor_train.cache import EMPTY, Frequencies, Places
from ps.nn.tensor_train.checks import (
    check_bags,
    check_cache,
    check_index,
    check_optimizer,
    check_settings,
    checked_shape,
)
from ps.nn.tensor_train.on_numba import core_rules, rule
from ps.nn.tensor_train.rows import Table, TrainedRows, arithmetic_of
from ps.tensor_train.cores import Cores
from ps.tensor_train.initial import CoreInitializer, default_variance, initial_cores
from ps.tensor_train.rates import gains

BLOCK_ROWS = 1 << 16
"""How many rows `full_weight` computes at a time."""


class FoldError(NamedTuple):
    """The error of the rows that left the cache in the last refresh: |core value - row| / |row| after folding."""

    rows: int
    mean: float
    max: float


class TensorTrainEmbeddingBag(nn.Module):
    """Sums or means of rows of a table [num_embeddings, embedding_dim] that takes a small part of its memory.

    tt_ranks: one number for each pair of neighbouring cores, so 1 to 3 of them. tt_p_shapes, tt_q_shapes: factors of
    num_embeddings (or a little more) and of embedding_dim, one a core; chosen if they are not given.

    sparse=True: `backward` applies `optimizer` (ps.SGD, the default with lr 0.1, ps.Adagrad, ps.RowwiseAdagrad) to
    cores and cached rows itself, once a call, with the cores as they are then. Its learning rate is that of rows: each
    core has the rate that moves a row as a row of its own would be moved (`ps.tensor_train.rates`), whatever the rank.
    Nothing is trained in eval mode. Other processes do not get these updates: with DistributedDataParallel use
    sparse=False. Then cores and cached rows are parameters with ordinary gradients, and any torch optimizer trains
    them, at the price of gradients as large as the cores; `parameter_groups` has the rates.

    use_cache, cache_size: so many rows, the most frequent, are held outside of the cores, exact and trained as rows of
    any table. Which ones changes when `cache_populate` is called, or by itself after `refresh_every` training lookups
    (0: never). With sparse=False a torch optimizer's state stays with the slot of the cache, whichever row has the
    slot. fold_tolerance: a slice of the cores is changed for rows that leave the cache only if that brings one of them
    within this relative error of its value; otherwise the slice stays, for the other rows that use it. math.inf:
    always.

    device: where the cores are; `.to` moves them later. float32 only, and not for two threads at a time. On other
    devices than the CPU it has not been run so far. initializer: see `ps.tensor_train.initial`. include_last_offset:
    offsets end with one more entry, the number of indices, as FBTT's do.

    Raises InvalidArgument where arguments do not fit together.
    """

    cache_weight: Tensor
    cache_ids: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        tt_ranks: Sequence[int],
        tt_p_shapes: Sequence[int] | None = None,
        tt_q_shapes: Sequence[int] | None = None,
        optimizer: CoreOptimizer | None = None,
        mode: Literal["sum", "mean"] = "sum",
        use_cache: bool = False,
        cache_size: int = 0,
        refresh_every: int = 0,
        fold_tolerance: float = 0.1,
        initializer: CoreInitializer = "approximate_uniform",
        seed: int = 0,
        device: torch.device | str | None = None,
        sparse: bool = True,
        include_last_offset: bool = False,
    ) -> None:
        super().__init__()
        check_settings(mode, initializer, seed)
        check_cache(use_cache, cache_size, refresh_every, fold_tolerance)
        self.num_embeddings, self.embedding_dim, self.mode = num_embeddings, embedding_dim, mode
        self.sparse, self.include_last_offset = sparse, include_last_offset
        self.optimizer = check_optimizer(optimizer, sparse)
        self.shape = checked_shape(num_embeddings, embedding_dim, tt_ranks, tt_p_shapes, tt_q_shapes)
        self.cache_size, self.refresh_every, self.fold_tolerance = cache_size, refresh_every, fold_tolerance
        self.lookups = 0
        """How many lookups were made in training, which `refresh_every` counts."""
        self.fold_error: FoldError | None = None
        """The error of the last refresh that folded rows back into the cores."""
        self._frequencies = Frequencies(cache_size)
        self._built: tuple[Any, Table] | None = None
        arrays = initial_cores(self.shape, default_variance(num_embeddings), initializer, seed)
        for k, rows_PW in enumerate(Cores(self.shape, arrays, core_rules(self.shape, self.optimizer)).rows):
            self._hold(f"core{k}", torch.from_numpy(rows_PW).to(device))
        width = embedding_dim + rule(self.optimizer, embedding_dim).state_width
        self._hold("cache_weight", torch.zeros((cache_size, width), device=device))
        self.register_buffer("cache_ids", torch.full((cache_size,), EMPTY, device=device))

    def forward(
        self, indices: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Returns float32 [B, D], as torch.nn.EmbeddingBag does: indices int64 or int32 [B, n], or [N] with the offset
        of each bag [B]; weights (sum only) of the shape of indices. Raises InvalidArgument, DtypeMismatch or
        LengthMismatch where these do not fit together."""
        check_index(indices, self.num_embeddings, self.cache_ids.device)
        check_bags(indices, offsets, per_sample_weights, self.mode, self.include_last_offset)
        index_U, inverse_N, counts_U = self._table().arithmetic.unique(indices.detach().reshape(-1).long())
        training = self.training and torch.is_grad_enabled()
        if training:
            self._count(index_U, counts_U)
        rows_UD = self._rows(index_U, trained=training if self.sparse else torch.is_grad_enabled())
        if not len(index_U):
            bags = len(indices) if offsets is None else len(offsets) - self.include_last_offset
            return rows_UD.new_zeros((bags, self.embedding_dim)) + rows_UD.sum()
        return embedding_bag(
            inverse_N.view(indices.shape),
            rows_UD,
            None if offsets is None else offsets.long(),
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
        )

    @torch.no_grad()
    def cache_populate(self) -> None:
        """Gives the cache to the rows that are most frequent now; uses counted so far then count half.

        A row that enters the cache begins with the product of its slices, and with new optimizer state. A row that
        stays does not change. Rows that leave are folded back into the cores by a few least-squares steps; if these do
        not bring a row within the tolerance, what it learned in the cache is lost, because there is no disk to keep it.
        `fold_error` has the errors of all rows that left.
        """
        if not self.cache_size:
            return
        table, cached_C = self._table(), self.cache_ids
        ranked_U = self._frequencies.rank(cached_C[cached_C != EMPTY])
        self._frequencies.halve()
        wanted_U = ranked_U[: self.cache_size]
        coming_U = wanted_U[~torch.isin(wanted_U, cached_C)]
        left_C = ~torch.isin(cached_C, wanted_U)
        leaving = (left_C & (cached_C != EMPTY)).nonzero().squeeze(1)
        leaving_ids, leaving_rows = cached_C[leaving], self.cache_weight[leaving, : self.embedding_dim]
        slots = left_C.nonzero().squeeze(1)[: len(coming_U)]
        self._lift(table, slots, coming_U)
        if len(leaving_ids):
            errors_U = table.arithmetic.fold(leaving_ids, leaving_rows, self.fold_tolerance)
            self.fold_error = FoldError(len(errors_U), float(errors_U.mean()), float(errors_U.max()))

    @torch.no_grad()
    def full_weight(self) -> Tensor:
        """Returns the whole table, float32 [num_embeddings, D]: use it for small tables."""
        index = torch.arange(self.num_embeddings, device=self.cache_ids.device)
        return torch.cat([self._table().read(part) for part in torch.split(index, BLOCK_ROWS)])

    @property
    def compression(self) -> float:
        """How many times more floats the dense table has than cores and cached rows, without the optimizer's state."""
        kept = self.shape.parameters + self.cache_size * self.embedding_dim
        return self.num_embeddings * self.embedding_dim / kept

    def set_learning_rate(self, lr: float) -> None:
        """Sets the learning rate of the optimizer that runs here (sparse=True)."""
        if self.optimizer is None:
            raise InvalidArgument("sparse=False: the learning rate is that of the torch optimizer, set it there")
        self.optimizer = type(self.optimizer)(**{**self.optimizer.model_dump(), "lr": lr})

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Returns parameter groups for torch's Adagrad, Adam and similar optimizers, with sparse=False: each core has
        the rate that moves a row as `lr` moves a row of its own. SGD does not need them: give it `parameters()` and the
        rate of rows."""
        if self.sparse:
            raise InvalidArgument(
                "sparse=True: there are no parameters for an optimizer of torch, backward() trains the cores itself"
            )
        found = dict(self.named_parameters())
        rates = {f"core{k}": lr / gain for k, gain in enumerate(gains(Adagrad(), self.shape))}
        return [{"params": [parameter], "lr": rates.get(name, lr)} for name, parameter in found.items()]

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the counts of uses and lookups, for `state_dict`."""
        fold_error = None if self.fold_error is None else list(self.fold_error)
        return {"lookups": self.lookups, "fold_error": fold_error, "frequencies": self._frequencies.state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up the counts of uses and lookups, for `load_state_dict`."""
        self.lookups = state["lookups"]
        self.fold_error = None if state["fold_error"] is None else FoldError(*state["fold_error"])
        self._frequencies.load(state["frequencies"], self.cache_ids.device)

    def extra_repr(self) -> str:
        """Returns in words how the table is factored."""
        s = self.shape
        how = self.optimizer if self.sparse else "sparse=False"
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, p={s.p}, q={s.q}, ranks={s.ranks}, padding={s.padding}, "
            f"parameters={s.parameters}, compression={self.compression:.1f}, mode={self.mode!r}, "
            f"cache_size={self.cache_size}, {how!r}"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": None}  # it holds the memory of this module, not that of a copy

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        kind = fn(torch.zeros(1)).dtype
        if kind != torch.float32:
            raise InvalidArgument(f"cores are float32, not {kind}: convert the result of the module instead")
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _hold(self, name: str, tensor: Tensor) -> None:
        if self.sparse or not len(tensor):
            self.register_buffer(name, tensor)
        else:
            self.register_parameter(name, nn.Parameter(tensor))

    def _table(self) -> Table:
        """Returns the table as it is now; it is built again when torch has moved it (`.to`, `load_state_dict`, a
        copy)."""
        cores = [getattr(self, f"core{k}") for k in range(len(self.shape.p))]
        held = (*cores, self.cache_weight, self.cache_ids)
        key = ([tensor.data_ptr() for tensor in held], self.cache_ids._version, self.optimizer)
        if self._built is None or self._built[0] != key:
            arithmetic = arithmetic_of(self.shape, cores, self.optimizer)
            places = Places(self.cache_ids) if self.cache_size else None
            table = Table(self.embedding_dim, arithmetic, cores, self.cache_weight, places)
            self._built = key, table
        return self._built[1]

    def _rows(self, index_U: Tensor, *, trained: bool) -> Tensor:
        if not trained:
            with torch.no_grad():
                return self._table().read(index_U)
        anchor = torch.empty(0, requires_grad=True)
        rows: Any = TrainedRows.apply  # torch leaves it untyped
        found: Tensor = rows(self._table, index_U, anchor, *self.parameters())
        return found

    def _count(self, index_U: Tensor, counts_U: Tensor) -> None:
        self.lookups += 1
        if self.cache_size:
            self._frequencies.note(index_U, counts_U)
            if self.refresh_every and self.lookups % self.refresh_every == 0:
                self.cache_populate()

    def _lift(self, table: Table, slots: Tensor, index_T: Tensor) -> None:
        self.cache_weight[slots, self.embedding_dim :] = rule(self.optimizer, self.embedding_dim).initial_state
        self.cache_weight[slots, : self.embedding_dim] = table.arithmetic.lookup(index_T)
        self.cache_ids[slots] = index_T
