"""EmbeddingBagCollection: the embedding layer of a click model, its rows on the shards.

    sparse features --dedupe per table--> prepare --> pull [U, D] --> pool per feature (torch) --> [B, F, D]
                                                                            |
                                         gradients of rows, [U, D], wait <--'  backward
                            step: push, once, what all backwards have left

Features that share a table share its rows: an id that two features name travels once. What torch differentiates is the
pooling over the rows pulled, so any pooling that torch can express trains the same way. Of a table that the shards pool
(`Feature.pooled`) sums are pulled, one a bag, and it is those that torch differentiates.
"""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ps import Client
from ps.config import TableConfig
from ps.errors import InvalidArgument, LengthMismatch
from ps.nn.batch import Bags
from ps.nn.embedding.ahead import PulledRows, Pulls, PullStaleness
from ps.nn.embedding.autograd import Stack, Watch
from ps.nn.embedding.dedupe import dedupe
from ps.nn.embedding.gradients import WaitingGradients
from ps.nn.embedding.kjt import bags_of
from ps.nn.embedding.pooled import ShardPooling
from ps.nn.embedding.prepared import Forward, PreparedBags
from ps.nn.embedding.pushes import Pushes
from ps.nn.embedding.row_optimizer import RowOptimizer, check_no_scaler
from ps.nn.embedding.sending import Sender
from ps.nn.feature import Feature
from ps.nn.modes import ASYNCHRONOUS, Mode
from ps.nn.sparsify.sum_masks import SumMasks
from ps.nn.sparsify.thresholds import Sparsify

log = logging.getLogger(__name__)


class EmbeddingBagCollection(nn.Module):
    """Pooled embeddings of several features from a parameter server.

    forward: {feature: Bags} (or a torchrec KeyedJaggedTensor) -> float32 [B, F, D], features in the order given.
    Bags and result are CPU tensors: move the result to the model's device, the gradient finds its way back.

    Training is as with torch's modules, and `step` is the optimizer's. `backward` adds to the gradients that wait here,
    any number of times, of any forwards. `step()` pushes their sums, once, waits until the shards' optimizers have
    applied them, and raises what went wrong. `send()` does not wait: call it before the dense optimizer's step, and the
    two go on side by side. `zero_grad()` drops what waits. A table that no loss has used is left alone.

    In eval mode, without grad, and where it is frozen (`requires_grad_(False)`, of the model too) nothing waits and the
    result requires no grad. `forward(sparse, labels)` lets tables whose importance has a weight for `positives` learn
    which ids those are.

    The rows are no parameters: there may be more of them than fit here. `anchor`, without elements, stands for them
    where torch asks a module for its parameters; `row_parameters` and `optimizer` are for clipping and for GradScaler.
    `copy.deepcopy` shares the client and the tables: a copy reads the same rows, and trains them where it is trained.
    What waits or is held back stays with the original. It cannot be pickled: save its `state_dict`.
    """

    def __init__(
        self,
        client: Client,
        tables: Sequence[TableConfig],
        features: Sequence[Feature] | None = None,
        *,
        sparsify: Sparsify | Mapping[str, Sparsify] | None = None,
        mask_sums: Sparsify | Mapping[str, Sparsify] | None = None,
        mode: Mode = ASYNCHRONOUS,
    ) -> None:
        """Creates the tables that do not exist. Without `features`, each table is one feature of its name, summed.

        sparsify: `TopK` or `Threshold`, for all tables or by table: only the largest gradients are pushed, the others
        are held back here and added to the next of their row. `flush` sends them; `state_dict` has them.
        mask_sums: the same by elements, of the sums that shards send while training (`Feature.pooled`): the others read
        as 0. What is left out of these nobody makes up for: `ps.nn.sparsify.sum_masks` says why.

        mode: how the pushes of several trainers go together, `Asynchronous`, `Synchronous` or `Bounded`. The gradients
        of all trainers are summed, so each should be of its part of the mean loss.
        """
        super().__init__()
        self.client = client
        self.features = tuple(features or [Feature(table.name, table.name) for table in tables])
        dims = {table.dim for table in tables}
        if len(dims) != 1:
            raise InvalidArgument(f"tables of dims {sorted(dims)}: one collection has one dim")
        self.dim = dims.pop()
        names = {table.name for table in tables}
        masked = mask_sums if isinstance(mask_sums, Mapping) else {name: mask_sums for name in names if mask_sums}
        if unknown := masked.keys() - names:
            raise InvalidArgument(f"mask_sums names tables {sorted(unknown)} that are not among `tables`")
        missing = {feature.table for feature in self.features} - names
        if missing:
            raise InvalidArgument(f"features use tables {sorted(missing)} that are not among `tables`")
        for table in tables:
            client.create_table(table, exist_ok=True)
        self.anchor = nn.Parameter(torch.empty(0))
        self._tables = tuple(tables)
        self._sparsify = sparsify
        self._masked = masked
        self._weigh_positives = {table.name for table in tables if table.importance.positives}
        self._pooling = ShardPooling(client, self.features, self.dim)
        self._pace = mode.start(client)
        self._begin()

    def _begin(self) -> None:
        """What is this collection's alone: nothing pulled, nothing waiting, nothing held back."""
        used = dict.fromkeys((feature.table for feature in self.features), self.dim)
        self._pulls = Pulls(self.client)
        self._sum_masks = SumMasks(self._masked)
        self._pushes = Pushes(self.client, self._tables, self._sparsify)
        self._sender = Sender(self.client, used, self._pushes, self._pace)
        self._waiting = WaitingGradients(used)
        self._may_be_scaled = True
        weakref.finalize(self, self._waiting.tell_lost)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def prepare(self, sparse: Mapping[str, Bags] | Any) -> PreparedBags:
        """Names a batch's ids to the shards and returns at once; pass the result to `forward` later."""
        bags = bags_of(sparse)
        missing = [feature.name for feature in self.features if feature.name not in bags]
        if missing:
            raise InvalidArgument(
                f"the batch lacks the features {missing}; it has {sorted(bags)}. One that no sample has: Bags.empty(B)"
            )
        sizes = {feature.name: len(bags[feature.name].offsets) for feature in self.features}
        if len(set(sizes.values())) != 1:
            raise InvalidArgument(
                f"features of different batch sizes in one batch: {sizes}. A KeyedJaggedTensor with a batch size per "
                "feature needs inverse_indices, which say what each sample has"
            )
        found = dedupe(bags, self.features)
        pooled = self._pooling.choose(bags, found.ids, found.inverse)
        step = self.client.prepare(found.ids, counts=found.counts, bags=pooled)
        size = next(iter(sizes.values()))
        return PreparedBags(step, bags, found.inverse, size, found.ids, found.counts, pooled)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self, sparse: PreparedBags | Mapping[str, Bags] | Any, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Float32 [B, F, D]. labels: [B], positive where above 0; they change no value, only what is important."""
        self._sender.raise_failed()
        prepared = sparse if isinstance(sparse, PreparedBags) else self.prepare(sparse)
        if labels is not None and len(labels) != prepared.batch_size:
            raise LengthMismatch(f"{len(labels)} labels for a batch of {prepared.batch_size}: give one a sample")
        trains = self.training and torch.is_grad_enabled() and self.anchor.requires_grad
        if trains:
            self._sender.begin_step()
        ahead, prepared.ahead = prepared.ahead, None  # if it has failed, the next use pulls again
        pulled = self._pulls.take(ahead, lambda: self._pull(prepared), self._sender.sent, self._sender.on_their_way)
        prepared.pulled, rows = pulled, pulled.rows
        if trains:
            positive_B = None if labels is None else (labels.detach().cpu().reshape(-1) > 0).numpy()
            forward = Forward(
                prepared, pulled, prepared.step.versions, self.features, self._weigh_positives, positive_B
            )
            rows = self._watched(forward)
        else:
            forward = None
            prepared.step.forget()  # no push will follow
        pooled = [self._pool(feature, prepared, rows[feature.table]) for feature in self.features]
        stack: Any = Stack.apply  # torch leaves it untyped
        result: torch.Tensor = stack(forward, *pooled)
        return result

    @property
    def staleness(self) -> PullStaleness:
        """Of the rows of the batches so far, in this trainer's own pushes."""
        return self._pulls.staleness

    def check_pull_ahead(self, batches: int) -> None:
        """Raises InvalidArgument unless this collection's mode, and its masks, allow to pull so far ahead."""
        self._pace.check_pull_ahead(batches)
        if batches and self._masked:
            raise InvalidArgument(
                f"pull_ahead={batches} with mask_sums: its thresholds go by one pull after the other; choose one"
            )

    def pull_ahead(self, prepared: PreparedBags, batches: int) -> None:
        """Begins to pull a batch's rows in the background, when the pushes sent so far are applied; they are used if at
        most `batches` more are sent until then. What goes wrong is raised at the use."""
        self.check_pull_ahead(batches)
        if prepared.ahead is None:
            prepared.ahead = self._pulls.start(
                lambda: self._pull(prepared), batches, self._sender.sent, self._sender.on_their_way
            )

    def send(self) -> None:
        """Begins to push the gradients that wait, and returns: the next step's come after them. What goes wrong is
        raised by `step`, or by the next `forward`."""
        self._sender.send(*self._taken())

    def step(self) -> None:
        """Pushes the gradients that wait, waits until they and what was sent before are applied, and raises the first
        error. What failed is told once, and dropped: the next step is without it.

        In a `Synchronous` group every trainer makes every step, also one whose batch had no ids or no gradients.
        Gradients of a scaled loss must come here unscaled: `scaler.step(collection.optimizer)`. Where a GradScaler is
        in use, the first step by any other way than that optimizer raises InvalidArgument.
        """
        self._sender.step(*self._taken())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients that wait."""
        super().zero_grad(set_to_none)
        self._waiting.clear()

    def row_parameters(self) -> list[nn.Parameter]:
        """A stand-in for each table, whose `.grad`, float32 [U, D], has the gradients that wait, row by row; None where
        there are none. For `torch.nn.utils.clip_grad_norm_([*model.parameters(), *collection.row_parameters()], 1.0)`
        between backward and step; as they are no rows, no optimizer can train them."""
        self._drop_zeroed()
        self._waiting.by_rows()
        return list(self._waiting.stand_ins.values())

    @cached_property
    def optimizer(self) -> RowOptimizer:
        """`step` and `zero_grad` as a torch optimizer: for `scaler.step(collection.optimizer)`."""
        self._may_be_scaled = False
        return RowOptimizer(self, self._waiting.stand_ins.values())

    def flush(self) -> None:
        """Sends the gradients that are held back (`sparsify`), after those on their way; raises what goes wrong."""
        self._sender.wait()
        self._pushes.flush()

    def finish(self) -> None:
        """Flushes, and tells the other trainers of the group that this one makes no more steps. Raises InvalidArgument,
        and does nothing, while gradients wait for a step."""
        self._drop_zeroed()
        if self._waiting.nbytes:
            raise InvalidArgument(f"{self._waiting.told}: call step(), or zero_grad() to drop them")
        self.flush()
        self._pace.finish()

    def get_extra_state(self) -> dict[str, Any]:
        """What is held back, for `state_dict`; not what waits for a step. Waits for the pushes on their way."""
        self._sender.wait()
        return self._pushes.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Of `load_state_dict`."""
        self._sender.wait()
        self._pushes.load_state_dict(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> EmbeddingBagCollection:
        """Shares the client, the tables and the place in a group; see the class."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        own = ("_pulls", "_sum_masks", "_pushes", "_sender", "_waiting", "optimizer")
        shared = ("client", "features", "_tables", "_sparsify", "_masked", "_pooling", "_pace")
        for name, value in self.__dict__.items():
            if name not in own:
                made.__dict__[name] = value if name in shared else copy.deepcopy(value, memo)
        made._begin()
        return made

    def __reduce__(self) -> Any:
        raise InvalidArgument(
            "an EmbeddingBagCollection has a connection to its shards, which hold the rows, and cannot be pickled or "
            "saved whole: save its state_dict(), and make another with its tables where that is loaded"
        )

    def _taken(self) -> Any:
        """What waits, by table, and the forwards that it is of: from now on it does not."""
        self._drop_zeroed()
        if self._may_be_scaled and self._waiting:
            check_no_scaler()
            self._may_be_scaled = False
        return self._waiting.take()

    def _drop_zeroed(self) -> None:
        """Whoever sets the gradients of a model's parameters to None, its `zero_grad` or an optimizer's, reaches the
        anchor's: then those of the rows are dropped too."""
        if self._waiting and self.anchor.grad is None:
            log.warning(
                "%s, and were dropped by a zero_grad() of the model or of an optimizer: call the collection's step() "
                "before that",
                self._waiting.told,
            )
            self._waiting.clear()

    def _watched(self, forward: Forward) -> dict[str, torch.Tensor]:
        """The rows that were pulled; their gradients will wait for a step."""

        def add(grads: Sequence[torch.Tensor | None]) -> None:
            self._drop_zeroed()
            given = zip(forward.pulled.rows, grads, strict=True)
            self._waiting.add(forward, {name: forward.part(name, grad) for name, grad in given if grad is not None})
            if self.anchor.grad is None:  # now, and not when autograd comes to it: another forward may add before that
                self.anchor.grad = torch.zeros_like(self.anchor)

        watch: Any = Watch.apply  # torch leaves it untyped
        return dict(zip(forward.pulled.rows, watch(add, self.anchor, *forward.pulled.rows.values()), strict=True))

    def _pull(self, prepared: PreparedBags) -> PulledRows:
        """On any thread: a batch may be pulled ahead in one mode of the module and used in the other."""
        exists: dict[str, npt.NDArray[np.bool_]] = {}
        important: dict[str, npt.NDArray[np.bool_]] = {}
        masks = self._sum_masks.next(prepared.pooled) if self.training else {}
        if self._pushes.wants_exists:
            asked = {name: s for name, s in self._pushes.important_shares.items() if name not in prepared.pooled}
            pulled = prepared.step.pull_rows(important=asked, mask_below=masks)
            exists = {name: np.asarray(part.exists) for name, part in pulled.items()}
            important = {
                name: np.asarray(part.important) for name, part in pulled.items() if part.important is not None
            }
            rows = {name: part.rows for name, part in pulled.items()}
        else:
            rows = prepared.step.pull(mask_below=masks)
        found = {name: torch.as_tensor(part) for name, part in rows.items()}
        if self.training:
            self._sum_masks.observe(prepared.pooled, found)
        return PulledRows(found, exists, important)

    def _pool(self, feature: Feature, prepared: PreparedBags, rows_UD: torch.Tensor) -> torch.Tensor:
        bags = prepared.bags[feature.name]
        if feature.pooling == "mean" and bags.weights is not None:
            raise InvalidArgument(f"feature {feature.name!r}: per-sample weights are for sum pooling, as in torch")
        if feature.table in prepared.pooled:
            return self._pooling.pool(feature, bags, rows_UD)
        if not len(rows_UD):
            return rows_UD.sum() + rows_UD.new_zeros((prepared.batch_size, self.dim))  # with a gradient, as in torch
        return nn.functional.embedding_bag(
            prepared.inverse[feature.name, feature.table],
            rows_UD,
            bags.offsets,
            mode=feature.pooling,
            per_sample_weights=bags.weights,
        )
